"""Streams of images: which images share a batch, and how far ahead they are decoded."""

from __future__ import annotations

import threading

import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2 import Embedder, load
from mlx_aimv2.errors import ImageError
from mlx_aimv2.inference.embedder import TEXTS
from mlx_aimv2.inference.pooling import pool
from mlx_aimv2.inference.stream import ImageStream

SIZES = [(168, 168), (210, 140), (168, 168), (140, 224), (210, 140), (168, 168), (224, 140)]


def test_native_images_of_one_size_share_a_batch(native, draw, monkeypatch):
    embedder, shapes = Embedder(*native, batch_size=2), []
    monkeypatch.setattr(
        "mlx_aimv2.inference.embedder.pool",
        lambda *given: (shapes.append(given[1].shape[:3]), pool(*given))[1],
    )
    embedder.images([draw(seed, *size) for seed, size in enumerate(SIZES)])
    assert sorted(shapes) == [(1, 140, 224), (1, 168, 168), (1, 224, 140), (2, 168, 168), (2, 210, 140)]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_memory_holds_a_few_batches_however_many_images_there_are(pair, draw, batch_size):
    class Endless:
        """As many images as nobody could hold."""

        def __len__(self) -> int:
            return 50_000

        def __getitem__(self, index: int) -> np.ndarray:
            decoded.append(index)
            return draw(index)

    decoded: list[int] = []
    embedder = Embedder(*pair, batch_size=batch_size)
    results = embedder.stream(Endless())
    for taken in range(1, 20):
        assert next(results).index == taken - 1
        assert len(decoded) <= taken + 3 * batch_size
    results.close()


def test_batches_come_in_the_order_of_their_first_image(native, draw):
    computed = []
    model, processor = native
    heights = [140, 168, 140, 140, 168, 196, 140]

    def compute(pixels):
        computed.append(pixels.shape[1])
        return mx.ones((len(pixels), 2))

    stream = ImageStream(compute, processor, model, batch_size=2)
    given = [draw(k, height, 168) for k, height in enumerate(heights)]
    taken = []
    for item in stream(given):
        taken.append((item.index, len(computed)))
    assert computed == [140, 168, 140, 196]
    assert [index for index, _ in taken] == list(range(7))
    assert taken[0] == (0, 1) and taken[2] == (2, 2), "a result waits for nothing but those before it"


@pytest.mark.parametrize(("batch_size", "ahead"), [(None, 128), (3, 6), (500, 256)])
def test_two_batches_are_decoded_ahead(tiny_vision, monkeypatch, batch_size, ahead):
    monkeypatch.setattr("mlx_aimv2.inference.batch_size.GPU_TOKENS", 1024)  # 64 images of 4 x 4 patches
    monkeypatch.setattr("mlx_aimv2.inference.batch_size.on_cpu", lambda: False)
    asked = {}
    monkeypatch.setattr(
        "mlx_aimv2.inference.stream.read_ahead",
        lambda *_, **options: asked.update(options) or (x for x in ()),
    )
    list(Embedder(*load(tiny_vision), batch_size=batch_size).stream(["a", "b"]))
    assert asked["ahead"] == ahead


def test_a_generator_is_read_two_batches_ahead_at_most_and_in_the_callers_thread(pair, draw):
    embedder, taken, image = Embedder(*pair, batch_size=2), [], draw(0)

    def endless():
        while True:
            taken.append(threading.get_ident())
            yield image

    stream = embedder.stream(endless())
    for count in range(1, 8):
        next(stream)
        assert len(taken) <= count + 2 * 2 + 2
    stream.close()
    assert set(taken) == {threading.get_ident()}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    texts = embedder.stream_texts(str(taken.append(0)) for _ in iter(int, 1))
    before = len(taken)
    next(texts)
    assert len(taken) == before + TEXTS


# --- overlap


@pytest.fixture(params=[True, False], ids=["cpu", "gpu"])
def device(request, monkeypatch):
    """Treats this machine as one with or without a GPU."""
    monkeypatch.setattr("mlx_aimv2.inference.stream.on_cpu", lambda: request.param)
    return "cpu" if request.param else "gpu"


def test_a_gpu_gets_the_next_batch_before_anybody_waits_for_the_last(vision, draw, device):
    model, processor = vision
    started = []

    def compute(pixels):
        started.append(len(pixels))
        return mx.ones((len(pixels), 2))

    stream = ImageStream(compute, processor, model, batch_size=2)
    seen = [(item.index, len(started)) for item in stream([draw(seed) for seed in range(5)])]
    first = [batches for index, batches in seen if index % 2 == 0]
    assert [index for index, _ in seen] == list(range(5))
    assert first == ([1, 2, 3] if device == "cpu" else [2, 3, 3])


@pytest.mark.parametrize("kind", ["pair", "native"])
@pytest.mark.parametrize("batch_size", [None, 1, 2, 3])
def test_a_gpu_gives_the_same_results_in_order(request, draw, monkeypatch, kind, batch_size):
    embedder = Embedder(*request.getfixturevalue(kind), batch_size=batch_size)
    images = [draw(seed, *size) for seed, size in enumerate(SIZES)]
    images[2:2] = [b"broken"]
    expected = list(embedder.stream(images))
    monkeypatch.setattr("mlx_aimv2.inference.stream.on_cpu", lambda: False)
    results = list(embedder.stream(images))
    assert [item.index for item in results] == list(range(8))
    assert [item.index for item in results if item.error] == [2]
    for item, other in zip(results, expected, strict=True):
        if not item.error:
            np.testing.assert_array_equal(item.vector, other.vector)


def test_results_before_an_error_come_first(vision, draw, device):
    model, processor = vision
    batches = []

    def compute(pixels):
        batches.append(len(pixels))
        if len(batches) == 3:
            raise ZeroDivisionError("a bug")
        return mx.ones((len(pixels), 2))

    seen = []
    with pytest.raises(ZeroDivisionError, match="a bug"):
        for item in ImageStream(compute, processor, model, batch_size=2)([draw(seed) for seed in range(9)]):
            seen.append(item.index)
    assert seen == [0, 1, 2, 3]


def test_what_a_generator_raises_comes_after_all_results(vision, draw, device):
    def failing():
        yield from (draw(seed) for seed in range(5))
        raise KeyError("of the generator")

    seen = []
    with pytest.raises(KeyError, match="of the generator"):
        for item in Embedder(*vision, batch_size=2).stream(failing()):
            seen.append(item.index)
    assert seen == list(range(5))


# --- memory


class Memory:
    """A model for which only images of so many pixels in all fit in memory."""

    def __init__(self, pixels: int) -> None:
        self.pixels, self.batches = pixels, []

    def __call__(self, images: mx.array) -> mx.array:
        self.batches.append(len(images))
        self.check(images)
        return images.mean(axis=(1, 2))

    def check(self, images: mx.array) -> None:
        if images.size > 3 * self.pixels:
            raise RuntimeError("[metal::malloc] Attempting to allocate 99 bytes")


class LazyMemory(Memory):
    """The same, if memory is missing only when the results are waited for."""

    def __init__(self, pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(pixels)
        monkeypatch.setattr("mlx_aimv2.inference.stream.evaluated", self.evaluated)

    def __call__(self, images: mx.array) -> mx.array:
        self.batches.append(len(images))
        return images

    def evaluated(self, images: mx.array) -> np.ndarray:
        self.check(images)
        return np.array(images.mean(axis=(1, 2)))


@pytest.fixture(params=["at once", "later"])
def memory(request, monkeypatch):
    """Makes a model that lacks memory when it begins, or when it is waited for."""
    return Memory if request.param == "at once" else lambda pixels: LazyMemory(pixels, monkeypatch)


@pytest.mark.parametrize(("most", "batches"), [(3, [8, 4, 2, 2, 4, 2, 2, 2, 2, 1]), (4, [8, 4, 4, 4, 1])])
def test_a_batch_that_does_not_fit_is_halved_and_later_ones_are_smaller(
    vision, draw, device, memory, most, batches
):
    model, processor = vision
    compute, images = memory(most * 56 * 56), [draw(seed) for seed in range(13)]
    with pytest.warns(UserWarning, match="not enough memory for 8 images of 56 x 56 pixels") as warned:
        results = list(ImageStream(compute, processor, model, batch_size=8)(images))
    assert len(warned) == 1
    assert [item.index for item in results] == list(range(13))
    expected = [processor.image_processor(image).mean(axis=(0, 1)) for image in images]
    np.testing.assert_allclose([item.vector for item in results], expected, atol=1e-5)
    if device == "cpu":  # a GPU starts the second batch before the first one fails
        assert compute.batches == batches


def test_an_image_that_does_not_fit_alone_fails_and_the_others_do_not(native, draw, device, memory):
    model, processor = native
    sizes = [(140, 140), (168, 168), (280, 280), (140, 140), (168, 168)]
    stream = ImageStream(memory(2 * 168 * 168), processor, model, batch_size=2)
    results = list(stream([draw(seed, *size) for seed, size in enumerate(sizes)]))
    assert [item.index for item in results] == list(range(5))
    (failed,) = (item for item in results if item.error)
    assert (failed.index, type(failed.error)) == (2, ImageError)
    assert str(failed.error) == "not enough memory for one image of 280 x 280 pixels: lower max_patches"


def test_without_native_resolution_there_is_no_size_to_lower(vision, draw, memory):
    (failed,) = ImageStream(memory(1), vision[1], vision[0])([draw(0)])
    assert str(failed.error) == "not enough memory for one image of 56 x 56 pixels"


def test_other_errors_of_the_model_are_raised(vision, draw, device):
    def compute(pixels):
        raise RuntimeError("[matmul] shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        list(ImageStream(compute, vision[1], vision[0])([draw(0), draw(1)]))
