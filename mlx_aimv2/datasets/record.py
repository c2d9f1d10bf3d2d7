"""Which image was in which split, as plain values to keep beside what was trained."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from ..errors import InputError
from .captioned import CaptionDataset
from .labelled import Dataset
from .rows import SPLITS

RECORD = "splits.json"
SKIPPED = "skipped"  # images that could not be read, beside the splits
MARKS = "files"
TAIL = 4096  # bytes; the checksum of a PNG is in them, and the last rows of a JPEG


def split_record(dataset: Dataset) -> dict[str, Any]:
    """Plain values that JSON can hold: labels, seed, fraction, and for each split path -> names of labels.

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


def data_account(dataset: Dataset | CaptionDataset) -> dict[str, Any]:
    """What was used of some data and what was not, as plain values for JSON."""
    return {
        "root": dataset.root,
        "images": {split: len(dataset.split(split)) for split in SPLITS},
        "notices": list(dataset.notices),
        "skipped": [{"path": each.source, "reason": each.reason} for each in dataset.skipped],
    }


def file_marks(dataset: Dataset | CaptionDataset) -> dict[str, str]:
    """What tells each image from others, whatever it is called: by its path as in the record.

    Raises:
        InputError: an image cannot be read.
    """
    found = {}
    for split in SPLITS:
        for example in dataset.split(split):
            if (mark := file_mark(example.path)) is None:
                raise InputError(
                    f"{example.path} cannot be read any more: put it back, or take it out of the data"
                )
            found[relative_path(example.path, dataset.root)] = mark
    return found


def file_mark(path: str) -> str | None:
    """Size and a hash of the last bytes of a file; None where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            return f"{size}-{hashlib.sha256(file.read(TAIL)).hexdigest()[:12]}"
    except (OSError, ValueError):
        return None


def relative_path(path: str, root: str) -> str:
    """``path`` without the root it begins with."""
    try:
        return Path(path).relative_to(root).as_posix()
    except ValueError:  # a table may name images anywhere
        return path
