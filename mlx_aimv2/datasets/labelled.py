"""Labelled images from class folders or tables, split into train, val and test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import InputError
from ..messages import counted, quoted
from .class_folders import read_folders
from .columns import LABEL, NoColumnError
from .options import Reading
from .rows import Row, Rows, check_exists, merge_rows, natural
from .splits import Item, Splits, check_split_options, check_training, split_rows
from .table_folders import check_other_tables, read_tables, tables_of
from .tables import read_table
from .tree import parent, read_tree


@dataclass(frozen=True)
class Example(Item):
    """An image and the numbers of its labels, in rising order."""

    labels: tuple[int, ...]


@dataclass(frozen=True)
class Dataset(Splits[Example]):
    """Labelled images in three splits.

    Attributes:
        labels: the names of the labels; the labels of images and the outputs of a head are indices into it.
        multi_label: whether an image may have several labels, or none.
    """

    labels: tuple[str, ...] = field(kw_only=True)
    multi_label: bool = field(kw_only=True)

    def counts(self, split: str = "train") -> tuple[int, ...]:
        """How many images of a split have each label."""
        counts = Counter(label for example in self.split(split) for label in example.labels)
        return tuple(counts[label] for label in range(len(self.labels)))


def read_dataset(
    data: str | os.PathLike[str],
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    training: bool = True,
    reading: Reading | None = None,
) -> Dataset:
    """Read labelled images in one of these forms.

    - a folder with a folder per class, or with `train/` (and `val/`, `test/`) each holding a folder per class;
    - a table (CSV and its relatives, JSON, JSON lines, Parquet) with path and label, perhaps with a column `split`;
      several labels of an image are separated by `;`, or a JSON list. Paths are relative to the folder of the file;
    - a folder with `train.csv` or `train.jsonl`, and perhaps such files called `val` and `test`;
    - a folder with `metadata.csv`, or with one in each of `train/`, `val/` and `test/`.

    An image that is listed twice with the same labels in the same split counts once.

    Args:
        data: the folder or file.
        val_fraction: the share of each class to hold out for validation, where the data has no such split.
        seed: chooses the images held out.
        training: refuse data that a classifier cannot learn from.
        reading: what to leave out, and which columns to use.

    Raises:
        InputError: the data has none of these forms, or has a mistake: the message names file and row.
    """
    check_split_options(val_fraction, seed)
    path = Path(data)
    source = _read(path, reading or Reading())
    root = path.parent if path.is_file() else path
    source = merge_rows(source, root, _same_labels)

    def example(row: Row, labels: tuple[int, ...]) -> Example:
        return Example(str(root / row.path), labels)

    return label_splits(source, path, root, example, val_fraction, seed, training=training)


def label_splits(
    source: Rows,
    data: Path,
    root: Path,
    make: Callable[[Row, tuple[int, ...]], Example],
    val_fraction: float,
    seed: int,
    *,
    training: bool = True,
) -> Dataset:
    """Number the labels of rows, and put the rows into their splits; see `read_dataset` and `split_rows`.

    Raises:
        InputError: a classifier cannot learn from the rows.
    """
    multi_label = any(len(row.labels) != 1 for row in source.rows)
    labels = _names(source.rows)
    if training:
        check_training(source, data)
        labels = _training_labels(data, source, multi_label)
    numbers = {name: number for number, name in enumerate(labels)}

    def example(row: Row) -> Example:
        return make(row, tuple(sorted(numbers[name] for name in row.labels)))

    splits = split_rows(source, root, example, lambda example: example.labels, val_fraction, seed)
    return Dataset(**vars(splits), labels=labels, multi_label=multi_label)


def check_trainable(dataset: Dataset) -> None:
    """Check that each class has training images.

    Raises:
        InputError: classes without training images; the message names them.
    """
    empty = [name for name, count in zip(dataset.labels, dataset.counts(), strict=True) if not count]
    if empty:
        images = counted(len(dataset.train), "training image")
        raise InputError(f"{images} left, but none of {quoted(empty)}: add some, or leave the class out")


def _read(data: Path, reading: Reading) -> Rows:
    """The rows of a table, of the tables in a folder, or of class folders."""
    check_exists(data, "a folder of images, or a .csv or .jsonl file")
    if not data.is_dir():
        return read_table(data, reading=reading)
    tree = read_tree(data, reading)
    unused: tuple[str, ...] = ()
    if tables := tables_of(tree):
        by_split = any(split and not parent(path) for path, split in tables)  # such as train.csv
        if by_split and any(folder.lower() == "train" for folder in map(parent, tree.folders)):
            check_other_tables(tree, "labels")  # train/ may be a split too, with class folders
        try:
            return read_tables(tree, tables, LABEL, reading)
        except NoColumnError as error:
            if by_split:
                raise
            unused = (f"not used: {error}",)
            try:
                source = read_folders(tree)
            except InputError:
                raise error from None
    else:
        check_other_tables(tree, "labels")
        source = read_folders(tree)
    return replace(source, notices=(*tree.notice(), *unused, *source.notices))


def _same_labels(first: Row, row: Row) -> Row:
    """The first of two rows for an image; an error if their labels differ."""
    if set(first.labels) != set(row.labels):
        raise InputError(
            f"{row.where}: {row.path} is labelled {quoted(row.labels)}, but in {first.where}"
            f" {quoted(first.labels)}: put several labels into one row, separated by ;"
        )
    return first


def _training_labels(data: Path, source: Rows, multi_label: bool) -> tuple[str, ...]:
    """The labels of the training images, in natural order."""
    labels = _names(row for row in source.rows if row.split in (None, "train"))
    for name in labels:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"the class name {name!r} is not valid UTF-8: rename it") from error
    if not labels or (len(labels) == 1 and not multi_label):
        advice = "a classifier needs at least two"
        if data.is_dir():
            advice += "; with folders, name the one that holds the folders of the classes"
        notices = "".join(f"; {notice}" for notice in source.notices)
        raise InputError(f"there is only one class, {quoted(labels)}, in {data}: {advice}{notices}")
    known = set(labels)
    for row in source.rows:
        for name in row.labels:
            if name not in known:
                raise InputError(
                    f"{row.where}: the label {name!r} in {row.split} is not in training, which has"
                    f" {quoted(labels)}: correct it, or add training images"
                )
    return labels


def _names(rows: Iterable[Row]) -> tuple[str, ...]:
    """The labels of some rows, in natural order."""
    return tuple(sorted({name for row in rows for name in row.labels}, key=natural))
