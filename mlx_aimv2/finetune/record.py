"""Which picture was in which split, as plain values to keep beside what was trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import InputError
from .dataset import Dataset, Example
from .rows import SPLITS

RECORD = "splits.json"
KEYS = {"labels", "multi_label", "seed", "val_fraction", *SPLITS}


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


def from_record(record: Any, root: str | os.PathLike[str]) -> Dataset:
    """The dataset of a record, its pictures below ``root``; they are not looked at.

    Raises:
        InputError: the record is not one that `split_record` made.
    """
    if not isinstance(record, dict) or set(record) != KEYS:
        raise InputError(f"this is no record of a split: it has to hold {', '.join(sorted(KEYS))}")
    try:
        labels = tuple(map(str, record["labels"]))
        numbers = {name: number for number, name in enumerate(labels)}
        splits = {
            split: tuple(
                Example(str(Path(root) / path), tuple(numbers[name] for name in names))
                for path, names in record[split].items()
            )
            for split in SPLITS
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the record of the split is damaged ({type(error).__name__}: {error}): train again"
        ) from error
    return Dataset(
        labels=labels,
        multi_label=bool(record["multi_label"]),
        root=os.fspath(root),
        val_fraction=record["val_fraction"],
        seed=record["seed"],
        **splits,
    )


def relative_path(path: str, root: str) -> str:
    """``path`` without the root it begins with."""
    try:
        return Path(path).relative_to(root).as_posix()
    except ValueError:  # a table may name pictures anywhere
        return path
