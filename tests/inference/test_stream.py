"""Streams of images: which images share a batch, and how far ahead they are decoded."""

from __future__ import annotations

import threading

import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2 import Embedder, load
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
    _, processor = native
    heights = [140, 168, 140, 140, 168, 196, 140]

    def compute(pixels):
        computed.append(pixels.shape[1])
        return mx.ones((len(pixels), 2))

    stream = ImageStream(compute, processor, mx.float32, batch_size=2)
    given = [draw(k, height, 168) for k, height in enumerate(heights)]
    taken = []
    for item in stream(given):
        taken.append((item.index, len(computed)))
    assert computed == [140, 168, 140, 196]
    assert [index for index, _ in taken] == list(range(7))
    assert taken[0] == (0, 1) and taken[2] == (2, 2), "a result waits for nothing but those before it"


@pytest.mark.parametrize(("batch_size", "ahead"), [(None, 128), (3, 6), (500, 256)])
def test_two_batches_are_decoded_ahead(tiny_vision, monkeypatch, batch_size, ahead):
    monkeypatch.setattr("mlx_aimv2.inference.stream.GPU_TOKENS", 1024)  # 64 images of 4 x 4 patches
    monkeypatch.setattr("mlx_aimv2.inference.stream.on_cpu", lambda: False)
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
