"""`splits.json`, the record of a training's data: which image is in which split, and which ones were skipped."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from ..errors import InputError
from .labelled import Dataset
from .rows import SPLITS
from .splits import Item, Splits

RECORD = "splits.json"
SKIPPED = "skipped"  # key of the images that cannot be read, beside the splits
MARKS = "files"
TAIL = 4096  # bytes at the end of a file: they hold the checksum of a PNG, and the last rows of a JPEG


def split_record(dataset: Dataset) -> dict[str, Any]:
    """Plain values for JSON: labels, seed, fraction, and for each split the label names of each path.

    Paths are relative to the folder of the data, so that the record stays true when the folder is moved.
    """
    record: dict[str, Any] = {
        "labels": list(dataset.labels),
        "multi_label": dataset.multi_label,
        "seed": dataset.seed,
        "val_fraction": dataset.val_fraction,
    }
    for split in SPLITS:
        record[split] = {
            relative_path(example.path, dataset.root): [dataset.labels[label] for label in example.labels]
            for example in dataset.split(split)
        }
    return record


def data_account(dataset: Splits[Item]) -> dict[str, Any]:
    """How many images a training used and which it skipped, as plain values for JSON."""
    return {
        "root": dataset.root,
        "images": {split: len(dataset.split(split)) for split in SPLITS},
        "notices": list(dataset.notices),
        "skipped": [{"path": each.source, "reason": each.reason} for each in dataset.skipped],
    }


def file_marks(dataset: Splits[Item]) -> dict[str, str]:
    """The `item_mark` of each image, by its path as in the record.

    Raises:
        InputError: an image cannot be read.
    """
    marks = {}
    for image in dataset.images():
        if (mark := item_mark(image)) is None:
            raise InputError(f"{image.path} cannot be read any more: put it back, or take it out of the data")
        marks[relative_path(image.path, dataset.root)] = mark
    return marks


def item_mark(item: Item) -> str | None:
    """The `file_mark` of an image's file; without one, a hash of its content."""
    if item.sample is None:
        return file_mark(item.path)
    return item.sample.version if item.sample.file is None else file_mark(item.sample.file)


def file_mark(path: str) -> str | None:
    """Size and a hash of the last bytes of a file, which identify a copy by another name; None if unreadable."""
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            return f"{size}-{hashlib.sha256(file.read(TAIL)).hexdigest()[:12]}"
    except (OSError, ValueError):
        return None


def relative_path(path: str, root: str) -> str:
    """``path`` relative to ``root``, or as it is where it lies elsewhere, as a table may have it."""
    try:
        return Path(path).relative_to(root).as_posix()
    except ValueError:
        return path
