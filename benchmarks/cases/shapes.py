"""Memory over time, while images of ever new shapes are embedded at native resolution."""

from __future__ import annotations

import ours
from data import checkpoint
from suite import QUICK_VISION, Case, Family, Result, Setup, Side
from timing import held_bytes

SHAPES, QUICK_SHAPES = 3_000, 40
EDGES = (160, 560)  # of the images, in pixels
TENTHS, EVERY = 10, 4  # parts of the run, and images from one look at the memory to the next
NAME = "native-tiny"


class RandomImages:
    """Images of noise, each of another size, made when they are asked for."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> object:
        """The image (H, W, 3) uint8 with this number."""
        import numpy as np

        random = np.random.default_rng(index)
        return random.integers(0, 256, (*random.integers(*EDGES, 2), 3), dtype=np.uint8)


def mlx(setup: Setup) -> Result:
    """`Embedder.stream`; the median of the memory in every tenth of the run, in MB."""
    from mlx_aimv2 import Embedder

    count = QUICK_SHAPES if setup.quick else SHAPES
    embedder = Embedder(*ours.load_model(setup, NAME))
    images = embedder.stream(RandomImages(count))
    held = [held_bytes() / 1e6 for number, _ in enumerate(images) if number % EVERY == 0]
    size = len(held) // TENTHS
    tenths = [sorted(held[start : start + size])[size // 2] for start in range(0, size * TENTHS, size)]
    values = {f"MB in tenth {number}": mb for number, mb in enumerate(tenths, 1)}
    return {"timings": {}, "values": {**values, "last over first tenth": tenths[-1] / tenths[0]}}


def cases(setup: Setup) -> list[Case]:
    """One case."""
    prepare = (checkpoint(NAME),)
    return [Case(f"{SHAPES:,} random sizes", (Side("mlx-aimv2", mlx),), 0, 1, prepare)]


FAMILY = Family(
    "shapes",
    "Images of ever new shapes",
    f"Noise of {EDGES[0]} to {EDGES[1]} pixels a side through a tiny encoder with native resolution"
    f" (width {QUICK_VISION['hidden_size']}): the memory of the process, over time.",
    cases,
)
