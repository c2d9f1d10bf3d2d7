"""From a checkpoint on disk to the first vector, and the peak of memory."""

from __future__ import annotations

import ours
import torch_peers
from data import checkpoint, photos, sample_image
from suite import Case, Family, Result, Setup, Side
from timing import peak_bytes, repeated, seconds

NAME, BATCH = "large-224", 8


def mlx(setup: Setup, images: int) -> Result:
    """`load`, then `Embedder` on images of a small file; nothing before that has run in the process."""
    from mlx_aimv2 import Embedder

    vectors = []

    def run() -> None:
        loaded = ours.load_model(setup, NAME)
        vectors.append(
            (loaded[0], Embedder(*loaded, batch_size=images).images([sample_image(setup)] * images))
        )

    duration = seconds(run)
    peak = peak_bytes()
    needed = ours.least_bytes(vectors[0][0], images, (224 // 14) ** 2)
    values = {f"{kind}_bytes": size for kind, size in needed.items()}
    return {"timings": {"": [duration]}, "values": {**values, "peak_ratio": peak / sum(needed.values())}}


def floor(setup: Setup, images: int) -> Result:
    """The weight file, read into memory, and one forward pass of a model that has already run."""
    path = setup.folder / NAME / "model.safetensors"
    read = seconds(lambda: len(path.read_bytes()))
    from mlx_aimv2.backend.blas import load_blas

    load_blas()
    import mlx.core as mx

    model, _ = ours.load_model(setup, NAME)
    pixels = mx.random.normal((images, 224, 224, 3))
    forward = sorted(repeated(setup, lambda: mx.eval(model(pixels).last_hidden_state), most=3))
    forward_s = forward[len(forward) // 2]
    return {
        "timings": {"": [read + forward_s], "reading": [read], "forward pass": [forward_s]},
        "values": {},
    }


def transformers(setup: Setup, images: int) -> Result:
    """`from_pretrained` of model and processor, and the mean of the tokens."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor

    def run() -> None:
        model = torch_peers.load_model(setup, NAME)
        processor = AutoImageProcessor.from_pretrained(setup.folder / NAME)
        opened = [Image.open(sample_image(setup)) for _ in range(images)]
        pixels = processor(images=opened, return_tensors="pt")["pixel_values"].to(torch_peers.device())
        with torch.inference_mode():
            model(pixels).last_hidden_state.mean(dim=1).cpu()

    return {"timings": {"": [seconds(run)]}, "values": {}}


def cases(setup: Setup) -> list[Case]:
    """The first vector, and a batch."""
    sides = (("mlx-aimv2", mlx, False), ("reading and one forward pass", floor, False),
             ("transformers float32", transformers, True))  # fmt: skip
    return [
        Case(name, tuple(Side(side, function, {"images": images}, is_peer=is_peer)
                         for side, function, is_peer in sides),
             0, rounds, (checkpoint(NAME), photos(1)))
        for name, images, rounds in (("first vector", 1, 3), (f"first {BATCH} vectors", BATCH, 1))
    ]  # fmt: skip


FAMILY = Family(
    "loading",
    "Load to first vector",
    "A checkpoint of large-224 in float32 (1.24 GB, in the page cache), from `load` to the vector of a small JPEG,"
    " after the imports. `peak_ratio` is the peak memory of the process over weights plus activations.",
    cases,
)
