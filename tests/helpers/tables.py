"""Tables of images, and what is read of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.labelled import touched

from mlx_aimv2.datasets.captioned import read_captions
from mlx_aimv2.datasets.labelled import Dataset, read_dataset
from mlx_aimv2.datasets.options import Reading
from mlx_aimv2.errors import InputError

CAPTIONS = {"a.jpg": ("a dog",), "b.jpg": ("a cat, asleep",)}


LABELS = {"a.jpg": ("cat",), "b.jpg": ("dog",)}


def write(file: Path, text: str | bytes) -> Path:
    """A table, and an empty file for each of `a.jpg` to `d.jpg` beside it."""
    touched(file.parent, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def labels(dataset: Dataset, split: str = "train") -> dict[str, tuple[str, ...]]:
    root = Path(dataset.root)
    return {
        Path(x.path).relative_to(root).as_posix(): tuple(dataset.labels[k] for k in x.labels)
        for x in dataset.split(split)
    }


def captions(data: Path, split: str = "train", **reading: Any) -> dict[str, tuple[str, ...]]:
    dataset = read_captions(data, val_fraction=0, reading=Reading(**reading))
    return {Path(x.path).relative_to(dataset.root).as_posix(): x.captions for x in dataset.split(split)}


def refused(data: Path, task: str = "labels", **reading: Any) -> str:
    read = read_dataset if task == "labels" else read_captions
    with pytest.raises(InputError) as caught:
        read(data, val_fraction=0, reading=Reading(**reading))
    assert "\n" not in str(caught.value)
    return str(caught.value)
