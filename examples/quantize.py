"""Quantize a checkpoint, and compare its embeddings with the original's; `demo` itself has 8 bits."""

import tempfile
from pathlib import Path

from mlx_aimv2 import Embedder, convert, load, sample_images

images = [sample.path for sample in sample_images()]


def embed(name):
    """Embed the sample images with a checkpoint."""
    model, processor = load(name, on_event=lambda _: None)  # without the notices about packed weights
    return Embedder(model, processor).images(images)


with tempfile.TemporaryDirectory() as work:
    original = embed("demo")
    for bits in (8, 6, 4, 3):
        folder = convert(
            "demo", Path(work, f"{bits}-bit"), quantize=True, q_bits=bits, on_event=lambda _: None
        )
        size = (folder / "model.safetensors").stat().st_size
        cosines = (original * embed(folder)).sum(axis=1)
        print(f"{bits} bits: {size / 1e6:.1f} MB, cosine with the original {cosines.mean():.4f}")
