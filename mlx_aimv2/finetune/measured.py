"""Which pictures of some data an evaluation measures: those that training had not seen, as far as that is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..checkpoints.files import read_json
from ..errors import InputError
from ..events import Notice, OnEvent
from .captions import CaptionDataset
from .dataset import Dataset
from .folders import counted
from .record import RECORD, relative_path
from .rows import SPLITS

ALL = "all"
KNOWN = (
    0.9  # of the pictures of a training that have to be there still, for the data to be that of the training
)
VAL_FRACTION, SEED = 0.2, 0  # where only one of them is given

Data = TypeVar("Data", Dataset, CaptionDataset)


@dataclass(frozen=True)
class Measure:
    """What part of the data is asked for; None for what nobody said.

    Attributes:
        split: "val", "test", "train" or "all".
        val_fraction: the part of each class that is the split for validation, whatever training had there.
        seed: what chooses it.
    """

    split: str | None = None
    val_fraction: float | None = None
    seed: int | None = None


def measured(
    read: Callable[..., Data], data: Path, adapter_path: Path | None, measure: Measure, on_event: OnEvent
) -> tuple[Data, tuple[str, ...]]:
    """Data in splits, and the names of those to measure.

    In the data of the training the pictures are in the splits that they had there, and newer ones in none; what was
    held out is measured. Other data is measured by its own `val`, or `test`, or as a whole where it has neither.

    Args:
        read: `read_dataset` or `read_captions`.
        data: a folder or file.
        adapter_path: the folder of a training; None where there was none.
        measure: what part is asked for.
        on_event: told what is measured, where nobody said it.

    Raises:
        InputError: the data cannot be read, or has no such pictures.
        ConfigError: the record that training left is damaged.
    """
    if measure.val_fraction is not None or measure.seed is not None:
        fraction = VAL_FRACTION if measure.val_fraction is None else measure.val_fraction
        dataset = read(data, val_fraction=fraction, seed=measure.seed or SEED, training=False)
        return dataset, _chosen(dataset, measure.split or "val")
    dataset = read(data, val_fraction=0, training=False)
    record = None if adapter_path is None else adapter_path.expanduser() / RECORD
    if record is not None and record.is_file() and measure.split != ALL:
        trained = as_in_training(dataset, read_json(record))
        if trained is not None:
            _tell(dataset, trained, on_event)
            return trained, _chosen(trained, measure.split or "val")
        on_event(
            Notice(f"{data} is not the data of the training in {adapter_path}: nothing of it was trained on")
        )
    own = next((split for split in ("val", "test") if dataset.split(split)), ALL)
    return dataset, _chosen(dataset, measure.split or own)


def as_in_training(dataset: Data, record: Mapping[str, Any]) -> Data | None:
    """The dataset in the splits of a record, newer pictures left out; None if it is the record of other data."""
    splits = {path: split for split in SPLITS for path in record.get(split, ())}
    pictures = [each for split in SPLITS for each in dataset.split(split)]
    found: dict[str, list[Any]] = {split: [] for split in SPLITS}
    for each in pictures:
        if (split := splits.get(relative_path(each.path, dataset.root))) is not None:
            found[split].append(each)
    if not splits or sum(map(len, found.values())) < KNOWN * len(splits):
        return None
    train, val, test = (tuple(found[split]) for split in SPLITS)
    return dataclasses.replace(dataset, train=train, val=val, test=test)


def _tell(dataset: Data, trained: Data, on_event: OnEvent) -> None:
    """Name how many pictures are in no split, since nobody would miss them."""
    newer = sum(len(dataset.split(split)) - len(trained.split(split)) for split in SPLITS)
    if newer:
        pictures = counted(newer, "picture")
        on_event(
            Notice(f"newer than the training, and in no split of it: {pictures}; --split all measures all")
        )


def _chosen(dataset: Data, split: str) -> tuple[str, ...]:
    """The splits that are meant.

    Raises:
        InputError: they hold no pictures.
    """
    counts = {name: len(dataset.split(name)) for name in ("val", "test", "train")}
    names = SPLITS if split == ALL else (split,)
    if not any(counts[name] for name in names):
        others = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "none"
        raise InputError(
            f"the data has no pictures in the split {split}, only in {others}: choose with --split, or give a"
            " --val-fraction"
        )
    return names
