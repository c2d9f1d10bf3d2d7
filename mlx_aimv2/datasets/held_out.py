"""The images of a data set that an evaluation uses: those that training did not see, as far as is known."""

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
from .options import Reading
from .record import MARKS, RECORD, SKIPPED, item_mark, relative_path
from .rows import SPLITS
from .scan import announce, first_skipped
from .splits import Item, Splits

ALL = "all"
KNOWN = (*SPLITS, SKIPPED)
VAL_FRACTION, SEED = 0.2, 0  # if only one of them is set

Data = TypeVar("Data", bound=Splits[Item])
T = TypeVar("T", bound=Item)


@dataclass(frozen=True)
class SplitChoice:
    """The images to evaluate; None for what the user leaves open.

    Attributes:
        split: "val", "test", "train" or "all".
        val_fraction: the share of each class that forms the split val, whatever training held out.
        seed: chooses these images.
        reading: how the data is read.
    """

    split: str | None = None
    val_fraction: float | None = None
    seed: int | None = None
    reading: Reading = field(default_factory=Reading)


def choose_splits(
    read: Callable[..., Data], data: Path, adapter_path: Path | None, choice: SplitChoice, on_event: OnEvent
) -> tuple[Data, tuple[str, ...]]:
    """A dataset in splits, and the names of the splits to evaluate.

    Images that a training knew are in the splits that they had there. The images that it held out are evaluated; if
    there are none, the images that it did not know. Data that it did not know at all is evaluated by its own `val`,
    or `test`, or as a whole if it has neither.

    Args:
        read: `read_dataset` or `read_captions`.
        data: a folder or file.
        adapter_path: the folder of the training; None for a model without one.
        choice: the images to evaluate.
        on_event: called with notices and the images left out.

    Raises:
        InputError: the data cannot be read, has no such images, or ``choice`` splits the data of the training anew.
        ConfigError: the record of the training is damaged.
    """
    fraction = choice.val_fraction
    if fraction is None:
        fraction = 0.0 if choice.seed is None else VAL_FRACTION
    dataset = read(
        data, val_fraction=fraction, seed=choice.seed or SEED, training=False, reading=choice.reading
    )
    announce(dataset, on_event)
    own = next((split for split in ("val", "test") if dataset.split(split)), ALL)
    if choice.val_fraction is not None:
        own = "val"
    record = None if adapter_path is None else adapter_path.expanduser() / RECORD
    if record is None or not record.is_file():
        return dataset, _names(dataset, choice.split or own)
    known = known_images(dataset, read_json(record))
    if not any(known.values()):
        on_event(Notice(f"no image of {data} was known to the training in {adapter_path}"))
        return dataset, _names(dataset, choice.split or own)
    if choice.val_fraction is not None or choice.seed is not None:
        raise InputError(
            f"--val-fraction and --seed would mix what was trained on in {adapter_path} with what was held out: leave"
            " them out"
        )
    return _as_in_training(dataset, known, choice.split, on_event)


def known_images(dataset: Splits[T], record: Mapping[str, Any]) -> dict[str, list[T]]:
    """The images that a record of a training names, by its splits; a copy by another name is the same image."""
    marks = record.get(MARKS, {})
    named = [(split, path, marks.get(path)) for split in KNOWN for path in record.get(split, ())]
    by_path = {(path, mark): split for split, path, mark in named}
    # reversed: `train` wins where copies are in two splits
    by_mark = {mark: split for split, _, mark in reversed(named)}
    known: dict[str, list[T]] = {split: [] for split in KNOWN}
    for image in dataset.images():
        mark = item_mark(image)
        split = by_path.get((relative_path(image.path, dataset.root), mark)) or by_mark.get(mark)
        if mark is not None and split is not None:
            known[split].append(image)
    return known


def _as_in_training(
    dataset: Data, known: Mapping[str, list[Item]], split: str | None, on_event: OnEvent
) -> tuple[Data, tuple[str, ...]]:
    if split == ALL:
        images = counted(len(dataset.images()), "image")
        on_event(Notice(f"{len(known['train']):,} of {images} were trained on"))
        return dataset, SPLITS
    named = {image.path for images in known.values() for image in images}
    new = [image for image in dataset.images() if image.path not in named]
    missing = [image.path for image in new if item_mark(image) is None]
    for skipped in first_skipped([Skipped(path, "it cannot be read") for path in missing], dataset.root):
        on_event(skipped)
    new = [image for image in new if image.path not in set(missing)]
    train, val, test = (tuple(known[name]) for name in SPLITS)
    if split is None and not val and new:  # images that training never saw are as good as held out
        val = tuple(new)
    elif new:
        images = counted(len(new), "image")
        on_event(Notice(f"{images} that the training did not know: left out; --split all measures all"))
    dataset = dataclasses.replace(dataset, train=train, val=val, test=test)
    return dataset, _names(dataset, split or "val")


def _names(dataset: Splits[Item], split: str) -> tuple[str, ...]:
    """The splits that ``split`` stands for; an error if they have no images."""
    counts = {name: len(dataset.split(name)) for name in ("val", "test", "train")}
    names = SPLITS if split == ALL else (split,)
    if not any(counts[name] for name in names):
        others = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "none"
        raise InputError(
            f"the data has no images in the split {split}, only in {others}: choose with --split, or give a"
            " --val-fraction"
        )
    return names
