"""Small labelled data on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mlx_aimv2.datasets.labelled import Dataset
from mlx_aimv2.processing.image import ImageProcessor, ImageProcessorConfig

EDGE = 28
PROCESSOR = ImageProcessor(ImageProcessorConfig.default(EDGE))
NATIVE = ImageProcessor(ImageProcessorConfig.default(224, native=True))


def image(path: Path, seed: int = 0, height: int = 40, width: int = 52) -> Path:
    """An image of noise, the same for the same seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def touched(root: Path, *names: str) -> Path:
    """Empty files: what is only listed need not be an image."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def class_folders(root: Path, **counts: int) -> Path:
    """A folder per class with so many images."""
    for number, (name, count) in enumerate(counts.items()):
        for k in range(count):
            image(root / name / f"{k:02}.png", 100 * number + k)
    return root


def table(file: Path, text: str) -> Path:
    """A table, and an empty file for each of `a.jpg` to `f.jpg` beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode())
    touched(file.parent, *(f"{letter}.jpg" for letter in "abcdef"))
    return file


def named(dataset: Dataset) -> dict[str, list[tuple[str, str]]]:
    """Each split as (path from the root, labels)."""
    root = Path(dataset.root)
    return {
        split: [
            (Path(x.path).relative_to(root).as_posix(), "+".join(dataset.labels[label] for label in x.labels))
            for x in dataset.split(split)
        ]
        for split in ("train", "val", "test")
    }
