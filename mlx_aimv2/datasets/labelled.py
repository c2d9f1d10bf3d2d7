"""Labelled images, from folders or tables, in splits for training, validation and test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from ..events import Skipped
from ..messages import counted, quoted
from .class_folders import read_folders
from .columns import LABEL, NoColumnError
from .options import Reading
from .rows import SPLITS, Row, Rows, check_split, check_there, natural
from .splits import by_split, check_fraction, check_seed
from .table_folders import check_other_tables, read_tables, tables_of
from .tables import IN_FOLDERS, read_table
from .tree import read_tree
from .unsupported import ENDINGS


@dataclass(frozen=True)
class Example:
    """An image and the numbers of its labels, in rising order."""

    path: str
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """Labelled images in three splits.

    Attributes:
        labels: the names of the classes; those of images and of a head's outputs are numbers into it.
        multi_label: whether an image may have several labels, or none.
        train: what is trained on.
        val: what is validated with while training; may be empty.
        test: what is measured with in the end; may be empty.
        root: the folder that the paths of a split record are relative to.
        val_fraction: what part of each class was held out; None where the data came with its own split.
        seed: what chose it.
        notices: what the user should know of the data.
        skipped: images that cannot be used, and why; those that cannot be opened are found later.
    """

    labels: tuple[str, ...]
    multi_label: bool
    train: tuple[Example, ...]
    val: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()
    root: str = "."
    val_fraction: float | None = None
    seed: int = 0
    notices: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def split(self, name: str) -> tuple[Example, ...]:
        """The examples of "train", "val" or "test".

        Raises:
            InputError: another name.
        """
        if name not in SPLITS:
            raise InputError(f"there is no split {name!r}: choose among {', '.join(SPLITS)}")
        examples: tuple[Example, ...] = getattr(self, name)
        return examples

    def counts(self, name: str = "train") -> tuple[int, ...]:
        """How many images of a split have each label."""
        counts = Counter(label for example in self.split(name) for label in example.labels)
        return tuple(counts[label] for label in range(len(self.labels)))


def read_dataset(
    data: str | os.PathLike[str],
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    training: bool = True,
    reading: Reading | None = None,
) -> Dataset:
    """Labelled images of one of these forms.

    - a folder with a folder per class, or with `train/` (and `val/`, `test/`) each holding a folder per class;
    - a table (CSV and its relatives, JSON, JSON lines, Parquet) with path and label, perhaps with a column `split`;
      several labels of an image are separated by `;`, or a JSON list. Paths are relative to the folder of the file;
    - a folder with `train.csv` or `train.jsonl`, and perhaps such files called `val` and `test`;
    - a folder with `metadata.csv`, or with one in each of `train/`, `val/` and `test/`.

    An image that is listed twice with the same labels in the same split counts once.

    Args:
        data: the folder or file.
        val_fraction: the part of each class that is held out for validation, where the data has no such split.
        seed: what chooses it.
        training: refuse what nothing could be learned from.
        reading: what to leave out.

    Raises:
        InputError: the data is none of these, or holds a mistake: the message names file and row.
    """
    check_fraction(val_fraction)
    check_seed(seed)
    path = Path(data)
    source = _rows(path, reading or Reading())
    root = path.parent if path.is_file() else path
    rows = _once(source.rows, root)
    train = [row for row in rows if row.split in (None, "train")]
    if training and not train:
        raise InputError(f"{path} holds no images for training: none of its rows is in the split train")
    labels = _labels(path, rows, train, source.notices) if training else _names(rows)
    numbers = {name: number for number, name in enumerate(labels)}

    def example(row: Row) -> Example:
        numbered = tuple(sorted(numbers[name] for name in row.labels))
        return Example(str(root / row.path), numbered)

    found, fraction = by_split(rows, lambda row: example(row).labels, val_fraction, seed)
    return Dataset(
        labels=labels,
        multi_label=_is_multi_label(rows),
        train=tuple(map(example, found["train"])),
        val=tuple(map(example, found["val"])),
        test=tuple(map(example, found["test"])),
        root=str(root),
        val_fraction=fraction,
        seed=seed,
        notices=source.notices,
        skipped=source.skipped,
    )


def _rows(data: Path, reading: Reading) -> Rows:
    """What the data holds, whatever its form."""
    check_there(data, "a folder of images, or a .csv or .jsonl file")
    if not data.is_dir():
        return read_table(data, reading=reading)
    tree = read_tree(data, reading, IN_FOLDERS | ENDINGS)
    tables = tables_of(tree)
    unused: tuple[str, ...] = ()
    if tables.by_split:
        for folder in tree.subfolders():  # a split of its own, or only the place of the images
            if folder.lower() == "train" and tree.subfolders(folder):
                check_other_tables(tree, "labels")
        return read_tables(tree, tables, LABEL, reading)
    if tables.files:
        try:
            return read_tables(tree, tables, LABEL, reading)
        except NoColumnError as error:
            unused = (f"not used: {error}",)
            try:
                source = read_folders(tree)
            except InputError:
                raise error from None
    else:
        check_other_tables(tree, "labels")
        source = read_folders(tree)
    return replace(source, notices=(*tree.notice(), *unused, *source.notices))


def _once(rows: Sequence[Row], root: Path) -> list[Row]:
    """``rows`` sorted by path, one for each image.

    Raises:
        InputError: an image is in two splits, or has other labels in another row.
    """
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(os.path.normpath(root.absolute() / row.path), row)
        check_split(row, other)
        if set(other.labels) != set(row.labels):
            raise InputError(
                f"{row.where}: {row.path} is labelled {quoted(row.labels)}, but in {other.where}"
                f" {quoted(other.labels)}: put several labels into one row, separated by ;"
            )
    # neither a disk's order nor a table's matters
    return sorted(first.values(), key=lambda row: row.path)


def _labels(data: Path, rows: list[Row], train: list[Row], notices: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes in their natural order.

    Raises:
        InputError: there is only one, or validation or test has one that training has not.
    """
    labels = _names(train)
    for name in labels:
        if not _is_utf8(name):
            raise InputError(f"the class name {name!r} is no valid UTF-8: rename it")
    multi_label = _is_multi_label(rows)
    if not labels or (len(labels) == 1 and not multi_label):
        hint = f" in {data}: a classifier needs at least two"
        folders = (
            "; with folders, name the one that holds the folders of the classes" if data.is_dir() else ""
        )
        notes = "".join(f"; {notice}" for notice in notices)
        raise InputError(f"there is only one class, {quoted(labels)},{hint}{folders}{notes}")
    known = set(labels)
    for row in rows:
        for name in row.labels:
            if name not in known:
                raise InputError(
                    f"{row.where}: the label {name!r} in {row.split} is not in training, which has"
                    f" {quoted(labels)}: correct it, or add training images"
                )
    return labels


def _names(rows: Iterable[Row]) -> tuple[str, ...]:
    """The labels that occur, in their natural order."""
    return tuple(sorted({name for row in rows for name in row.labels}, key=natural))


def _is_utf8(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def _is_multi_label(rows: Iterable[Row]) -> bool:
    return any(len(row.labels) != 1 for row in rows)


def check_trainable(dataset: Dataset) -> None:
    """Refuse a dataset whose classes are not all in training.

    Raises:
        InputError: the first class without training images is named.
    """
    empty = [name for name, count in zip(dataset.labels, dataset.counts(), strict=True) if not count]
    if empty:
        images = counted(len(dataset.train), "training image")
        raise InputError(f"{images} left, but none of {quoted(empty)}: add some, or leave the class out")
