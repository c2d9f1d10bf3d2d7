"""Buffers and streams of mlx-data: images, names, what is refused, and what must not hang or crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.encoded_images import encoded, noise, smooth
from helpers.programs import run_program
from PIL import Image

from mlx_aimv2.errors import ImageError, InputError
from mlx_aimv2.processing.decode import decode_image
from mlx_aimv2.processing.processor import as_items
from mlx_aimv2.processing.samples import SampleNames, Samples, labels_of, samples_of

dx: Any = pytest.importorskip("mlx.data", reason="mlx-data has no package for this machine")


def buffer(*samples: dict[str, Any]) -> Any:
    return dx.buffer_from_vector(list(samples))


def pixels(source: Any) -> np.ndarray:
    return np.asarray(decode_image(source))


def test_an_image_is_pixels_a_path_or_the_content_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "é.png"
    Image.fromarray(noise()).save(path)
    content = np.frombuffer(bytearray(encoded(Image.fromarray(noise()), "PNG")), np.uint8)
    name = buffer({"image": str(path).encode()})
    for images in (buffer({"image": noise()}), name, buffer({"image": content}), name.load_file("image")):
        np.testing.assert_array_equal(pixels(samples_of(images)[0]), noise())


def test_the_id_is_the_name() -> None:
    image = noise()
    images = samples_of(buffer({"image": image, "id": b"cat.jpg"}, {"image": image, "id": 7}))
    assert [image.id for image in images] == ["cat.jpg", "7"]
    assert [image.id for image in samples_of(buffer({"image": image}, {"image": image}))] == [
        "sample 0",
        "sample 1",
    ]


def test_errors_are_named_by_the_id() -> None:
    images = samples_of(buffer({"image": b"nothing.jpg", "id": b"cat"}))
    with pytest.raises(ImageError, match=r"^cat: cannot be read: No such file or directory"):
        decode_image(images[0])
    with pytest.raises(ImageError, match=r"^sample 0: load_jpeg: could not load"):
        samples_of(buffer({"image": b"nothing.jpg", "id": b"cat"}).load_image("image"))[0]
    with pytest.raises(ImageError, match=r"^sample 0: 'boom'"):

        def fail(_: Any) -> Any:
            raise KeyError("boom")

        samples_of(buffer({"image": b"nothing.jpg"}).key_transform("image", fail))[0]


def test_a_sample_without_an_image() -> None:
    with pytest.raises(
        ImageError, match=r"^cat: a sample needs the key image, and has file, id: rename_key gives it$"
    ):
        samples_of(buffer({"file": b"a.jpg", "id": b"cat"}))[0]


def test_ids_are_texts() -> None:
    with pytest.raises(
        InputError, match=r"^sample 0: ids, captions and names of labels have to be bytes in UTF-8"
    ):
        samples_of(buffer({"image": noise(), "id": np.array([195], np.uint8)}))[0]
    with pytest.raises(InputError, match=r"^sample 0: ids, captions and names"):
        samples_of(buffer({"image": noise(), "id": np.zeros((2, 2))}))[0]


@pytest.mark.parametrize(
    ("label", "labels"),
    [(3, (3,)), (np.int32(2), (2,)), (2.0, (2,)), (np.array([4, 1, 4]), (1, 4)),
     (np.frombuffer(b"a cat", np.int8), ("a cat",)), (np.zeros(0, np.int64), ())],
)  # fmt: skip
def test_labels(label: Any, labels: tuple[Any, ...]) -> None:
    assert labels_of(label, "cat") == labels


@pytest.mark.parametrize("label", [1.5, np.zeros((2, 2), np.int64)])
def test_wrong_labels(label: Any) -> None:
    with pytest.raises(
        InputError, match=r"^cat: its label has to be a whole number, several of them, or the bytes"
    ):
        labels_of(label, "cat")


def test_names_are_known_once_a_sample_was_fetched() -> None:
    samples = samples_of(buffer({"image": noise(), "id": b"cat"}, {"image": noise(), "id": b"dog"}))
    names = SampleNames(samples)
    assert isinstance(samples[1].id, str)
    assert list(names) == ["sample 0", "dog"]


def test_lists_buffers_and_streams_are_items() -> None:
    images = [np.array(smooth(8, 8)), noise(8, 8)]
    made = buffer(*({"image": image} for image in images))
    assert isinstance(as_items(made), Samples)
    for items in (as_items(made), as_items(made.to_stream())):
        for image, item in zip(images, items, strict=True):
            np.testing.assert_array_equal(pixels(item), image)


def test_a_stream_that_fails_says_where() -> None:
    stream = buffer({"image": noise()}, {"file": b"x"}).to_stream()
    items = iter(as_items(stream))
    next(items)
    with pytest.raises(ImageError, match=r"^sample 1: a sample needs the key image, and has file"):
        next(items)
    broken = iter(as_items(buffer({"image": b"nothing.jpg"}).load_image("image").to_stream()))
    with pytest.raises(ImageError, match=r"^sample 0: load_jpeg: could not load"):
        next(broken)


def test_only_embedding_takes_a_stream() -> None:
    message = r"^a Stream can only be embedded: give a Buffer, such as stream\.to_buffer\(\)$"
    with pytest.raises(InputError, match=message):
        samples_of(buffer({"image": noise()}).to_stream())


THREADS = """
import ctypes, glob, sys
import numpy as np
import mlx_aimv2
from mlx_aimv2.sources.readahead import read_ahead
from mlx_aimv2.processing.processor import as_items
from mlx_aimv2.processing.decode import decode_image
import mlx.core as mx
import mlx.data as dx

mx.eval(mx.ones((8, 8)) @ mx.ones((8, 8)))
loaded = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
def threads():
    counts = {}
    for path in loaded:
        for name in ("openblas_get_num_threads", "MKL_Get_Max_Threads", "bli_thread_get_num_threads"):
            function = getattr(ctypes.CDLL(path), name, None) if "blas" in path or "mkl_rt" in path else None
            if function is not None:
                counts[path, name] = function()
    return counts

image = np.zeros((32, 32, 3), np.uint8)
buffer = dx.buffer_from_vector([{"image": image} for _ in range(200)]).image_resize("image", 16, 16)
before, during = threads(), []
for number, result in enumerate(read_ahead(as_items(buffer), lambda x: np.asarray(decode_image(x)), 4)):
    assert result.error is None
    if number % 20 == 0:
        during.append(threads())
assert all(counts == before for counts in during), (before, during)
assert threads() == before
print(len(before))
"""


def test_the_threads_of_the_blas_library_stay_as_they_are() -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("the libraries of a process are listed on Linux only")
    done = run_program(THREADS)
    assert done.returncode == 0, done.stderr[-500:]
    if int(done.stdout) == 0:
        pytest.skip("no BLAS library that tells its threads")


POOLS = """
import sys
import numpy as np
import mlx_aimv2
from mlx_aimv2.sources.readahead import read_ahead
from mlx_aimv2.processing.processor import as_items
from mlx_aimv2.processing.decode import decode_image
import mlx.data as dx

image = np.zeros((8, 8, 3), np.uint8)
broken = dx.buffer_from_vector([{"image": b"nothing.jpg"}] * 9).load_image("image")
whole = dx.buffer_from_vector([{"image": image}] * 9).image_resize("image", 4, 4)
def decode(item):
    return np.asarray(decode_image(item))
for number in range(1000):
    images = read_ahead(as_items((whole, broken)[number % 2]), decode, 4, 4)
    for _ in range(number % 5):
        next(images)
    images.close()
print("done")
"""


def test_a_thousand_pools_are_made_and_dropped() -> None:
    done = run_program(POOLS, seconds=100)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-500:]


@pytest.mark.parametrize("kind", ["buffer", "stream"])
def test_a_process_ends_well_with_a_source_half_used(kind: str) -> None:
    program = (
        POOLS.partition("for number in")[0]
        + """
def images(x):
    return x["image"] if isinstance(x, dict) else x
source = whole.key_transform("image", images)
results = read_ahead(as_items(source if sys.argv[1] == "buffer" else source.to_stream()), decode, 2, 2)
next(results)
print("done")
"""
    )
    done = run_program(program, kind, seconds=60)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-500:]


def test_a_buffer_is_embedded_like_a_list(tiny_vision: Path) -> None:
    from mlx_aimv2 import Embedder, load

    model, processor = load(tiny_vision)
    images = [noise(40, 50), np.array(smooth()), noise(30, 30)]
    made = buffer(*({"image": image} for image in images))
    embedder = Embedder(model, processor)
    expected = embedder.images(images)
    for items in (made, made.to_stream()):
        np.testing.assert_array_equal(embedder.images(items), expected)
    pixels_of_all = buffer({"image": images[0]}, {"image": images[0]})
    assert processor(images=pixels_of_all)["pixel_values"].shape[0] == 2
    broken = buffer({"image": b"nothing.jpg", "id": b"cat"}, {"image": images[0]})
    assert [result.error is None for result in embedder.stream(broken)] == [False, True]
    with pytest.raises(ImageError, match=r"^image 0: cat: cannot be read"):
        embedder.images(broken)
