"""Which images of some data an evaluation measures: those that training had not seen, as far as that is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError
from ..events import Notice, OnEvent, Skipped
from ..messages import counted
from ..storage.json_files import read_json
from .captioned import CaptionDataset
from .labelled import Dataset
from .options import Reading
from .record import MARKS, RECORD, SKIPPED, file_mark, relative_path
from .rows import SPLITS
from .scan import announce, shortened

ALL = "all"
KNOWN = (*SPLITS, SKIPPED)
VAL_FRACTION, SEED = 0.2, 0  # where only one of them is given

Data = TypeVar("Data", Dataset, CaptionDataset)


@dataclass(frozen=True)
class Measure:
    """What part of the data is asked for; None for what nobody said.

    Attributes:
        split: "val", "test", "train" or "all".
        val_fraction: the part of each class that is the split for validation, whatever training had there.
        seed: what chooses it.
        reading: how the data is read.
    """

    split: str | None = None
    val_fraction: float | None = None
    seed: int | None = None
    reading: Reading = field(default_factory=Reading)


def measured(
    read: Callable[..., Data], data: Path, adapter_path: Path | None, measure: Measure, on_event: OnEvent
) -> tuple[Data, tuple[str, ...]]:
    """Data in splits, and the names of those to measure.

    Images that training knew are in the splits that they had there; what was held out is measured, and where there
    is none of it, those that training did not know. Data of which it knew nothing is measured by its own `val`, or
    `test`, or as a whole where it has neither.

    Args:
        read: `read_dataset` or `read_captions`.
        data: a folder or file.
        adapter_path: the folder of a training; None where there was none.
        measure: what part is asked for.
        on_event: told which images are left out, and which were trained on.

    Raises:
        InputError: the data cannot be read, has no such images, or is to be split otherwise than in training.
        ConfigError: the record that training left is damaged.
    """
    fraction = measure.val_fraction
    if fraction is None:
        fraction = 0.0 if measure.seed is None else VAL_FRACTION
    dataset = read(
        data, val_fraction=fraction, seed=measure.seed or SEED, training=False, reading=measure.reading
    )
    announce(dataset, on_event)
    own = next((split for split in ("val", "test") if dataset.split(split)), ALL)
    if measure.val_fraction is not None:
        own = "val"
    path = None if adapter_path is None else adapter_path.expanduser() / RECORD
    if path is None or not path.is_file():
        return dataset, _chosen(dataset, measure.split or own)
    known = known_images(dataset, read_json(path))
    if not any(known.values()):
        on_event(Notice(f"no image of {data} was known to the training in {adapter_path}"))
        return dataset, _chosen(dataset, measure.split or own)
    if measure.val_fraction is not None or measure.seed is not None:
        raise InputError(
            f"--val-fraction and --seed would mix what was trained on in {adapter_path} with what was held out: leave"
            " them out"
        )
    return _as_in_training(dataset, known, measure.split, on_event)


def known_images(dataset: Dataset | CaptionDataset, record: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The images that a record of a training names, by its splits; a copy by another name is the same image."""
    marks = record.get(MARKS, {})
    named = [(split, path, marks.get(path)) for split in KNOWN for path in record.get(split, ())]
    by_path = {(path, mark): split for split, path, mark in named}
    by_mark = {mark: split for split, _, mark in reversed(named)}  # what was trained on counts as that
    found: dict[str, list[Any]] = {split: [] for split in KNOWN}
    for each in (each for split in SPLITS for each in dataset.split(split)):
        mark = file_mark(each.path)
        split = by_path.get((relative_path(each.path, dataset.root), mark)) or by_mark.get(mark)
        if mark is not None and split is not None:
            found[split].append(each)
    return found


def _as_in_training(
    dataset: Data, known: Mapping[str, list[Any]], split: str | None, on_event: OnEvent
) -> tuple[Data, tuple[str, ...]]:
    everything = [each for name in SPLITS for each in dataset.split(name)]
    if split == ALL:
        images = counted(len(everything), "image")
        on_event(Notice(f"{len(known['train']):,} of {images} were trained on"))
        return dataset, SPLITS
    named = {each.path for images in known.values() for each in images}
    new = [each for each in everything if each.path not in named]
    missing = [each.path for each in new if file_mark(each.path) is None]
    for skipped in shortened([Skipped(path, "it cannot be read") for path in missing], dataset.root):
        on_event(skipped)
    new = [each for each in new if each.path not in set(missing)]
    parts = {name: tuple(known[name]) for name in SPLITS}
    if split is None and not parts["val"] and new:  # what training never saw is as good as held out
        parts["val"] = tuple(new)
    elif new:
        images = counted(len(new), "image")
        on_event(Notice(f"{images} that the training did not know: left out; --split all measures all"))
    dataset = dataclasses.replace(dataset, train=parts["train"], val=parts["val"], test=parts["test"])
    return dataset, _chosen(dataset, split or "val")


def _chosen(dataset: Data, split: str) -> tuple[str, ...]:
    """The splits that are meant.

    Raises:
        InputError: they hold no images.
    """
    counts = {name: len(dataset.split(name)) for name in ("val", "test", "train")}
    names = SPLITS if split == ALL else (split,)
    if not any(counts[name] for name in names):
        others = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "none"
        raise InputError(
            f"the data has no images in the split {split}, only in {others}: choose with --split, or give a"
            " --val-fraction"
        )
    return names
