"""Convert a checkpoint to fewer bits, and see what that changed: `demo` itself comes with 8."""

import tempfile
from pathlib import Path

from mlx_aimv2 import Embedder, convert, load
from mlx_aimv2.demo.examples import shown_examples

images = [example.image(224) for example in shown_examples(24)]


def look(name):
    """The vectors of the images."""
    model, processor = load(name, on_event=lambda event: None)  # do not warn that a CPU unpacks the weights
    return Embedder(model, processor).images(images)


with tempfile.TemporaryDirectory() as work:
    original = look("demo")
    for bits in (8, 6, 4, 3):
        folder = convert("demo", Path(work, f"{bits}-bit"), quantize=True, q_bits=bits)
        size = (folder / "model.safetensors").stat().st_size
        cosines = (original * look(folder)).sum(axis=1)
        print(f"{bits} bits: {size / 1e6:.1f} MB, cosine with the original {cosines.mean():.4f}")
