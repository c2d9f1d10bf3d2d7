"""How many images share a batch: the user's number, the device, its memory."""

import pytest

from mlx_aimv2.errors import InputError
from mlx_aimv2.inference import batch_size
from mlx_aimv2.inference.batch_size import BatchSize


@pytest.fixture
def on_gpu(monkeypatch):
    """Pretends that this machine computes on a GPU with so many bytes."""

    def set_memory(total):
        monkeypatch.setattr(batch_size, "on_cpu", lambda: False)
        monkeypatch.setattr(batch_size, "gpu_bytes", lambda: total)
        monkeypatch.setattr("mlx.core.get_active_memory", lambda: 0)

    return set_memory


def weight_bytes(tower):
    from mlx.utils import tree_flatten

    return sum(x.nbytes for _, x in tree_flatten(tower.parameters()))


@pytest.mark.parametrize(("edge", "count"), [(14, 512), (56, 32), (224, 2), (448, 1)])
def test_on_a_cpu_the_number_of_patches_counts(vision, edge, count):
    assert BatchSize(None, vision[0]).of(edge, edge) == count


@pytest.mark.parametrize("total", [None, 2**40])
def test_on_a_large_gpu_a_batch_has_as_many_tokens_as_fill_it(vision, on_gpu, total):
    on_gpu(total)
    assert BatchSize(None, vision[0]).of(224, 224) == batch_size.GPU_TOKENS // 256


def test_on_a_small_gpu_a_batch_fits_beside_the_weights(vision, on_gpu):
    tower = vision[0]
    weights, image = weight_bytes(tower), 16 * batch_size.token_bytes(tower)  # of 56 x 56 pixels
    for images in (1, 3, 100):
        on_gpu(weights + int(images * image * batch_size.AT_ONCE / batch_size.SHARE))
        assert BatchSize(None, tower).of(56, 56) == images


def test_other_arrays_take_memory_of_a_gpu_too(vision, on_gpu, monkeypatch):
    tower = vision[0]
    on_gpu(2**30)
    monkeypatch.setattr("mlx.core.get_active_memory", lambda: 2**30 - 2**20)
    left = BatchSize(None, tower).of(14, 14)
    assert left == 2**20 * batch_size.SHARE // (batch_size.AT_ONCE * batch_size.token_bytes(tower))


def test_a_batch_has_an_image_even_if_the_memory_seems_too_small(vision, on_gpu):
    on_gpu(1000)
    assert BatchSize(None, vision[0]).of(448, 448) == 1


def test_a_token_needs_its_pixels_and_the_widest_step_of_a_layer(vision):
    # 14 x 14 pixels of 3 channels, and in float32 two vectors of 64 and three of 128 numbers
    assert batch_size.token_bytes(vision[0]) == 4 * 14 * 14 * 3 + 4 * (2 * 64 + 3 * 128)


def test_the_users_number_counts_on_a_gpu(vision, on_gpu):
    on_gpu(1000)
    assert BatchSize(500, vision[0]).of(56, 56) == 500


@pytest.mark.parametrize(
    ("streams", "edge", "count"), [(1, 224, 4), (2, 224, 4), (4, 224, 8), (4, 448, 2), (2, 56, 50)]
)
def test_a_cpu_takes_large_batches_in_parts(vision, monkeypatch, streams, edge, count):
    monkeypatch.setattr(batch_size, "divide_threads", lambda: streams)
    assert BatchSize(50, vision[0]).of(edge, edge) == count
    assert BatchSize(1, vision[0]).of(edge, edge) == 1


@pytest.mark.parametrize("chosen", [0, -3])
def test_a_batch_of_no_images_is_refused(vision, chosen):
    with pytest.raises(InputError, match=f"batch_size must be at least 1, not {chosen}$"):
        BatchSize(chosen, vision[0])


@pytest.mark.parametrize("chosen", [None, 40])
def test_after_a_lack_of_memory_batches_are_halved_for_good_with_one_warning(vision, on_gpu, chosen):
    on_gpu(None)
    size = BatchSize(chosen, vision[0])
    with pytest.warns(UserWarning) as warned:
        size.reduce(40, 56, 56)
        assert size.of(56, 56) == 20
        size.reduce(20, 56, 56)
    assert [str(warning.message) for warning in warned] == [
        "not enough memory for 40 images of 56 x 56 pixels at once: batches are smaller from now on"
    ]
    assert size.of(56, 56) == 10
    assert size.of(112, 56) == 5, "what counts is the number of patches"
    size.reduce(30, 56, 56)
    assert size.of(56, 56) == 10, "it never grows again"
