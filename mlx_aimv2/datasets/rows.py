"""Rows of a data set: each an image with its labels or captions, and its split."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from ..events import Skipped

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Row:
    """An image with its labels or captions, as the data names it.

    Attributes:
        path: relative to the folder of the data, with forward slashes; or absolute.
        labels: its labels, or its captions, without duplicates.
        split: "train", "val" or "test"; None where the data does not say.
        where: what messages call the row, such as `labels.csv, row 4`.
    """

    path: str
    labels: tuple[str, ...]
    split: str | None
    where: str


@dataclass(frozen=True)
class Rows:
    """All rows of a data set.

    Attributes:
        rows: one or more for each image.
        notices: what the user should know, such as what is left out.
        skipped: images that cannot be used, and why.
    """

    rows: list[Row]
    notices: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()


def merge_rows(source: Rows, root: Path, merge: Callable[[Row, Row], Row]) -> Rows:
    """One row for each image, sorted by path, so that the order of a disk or a table does not matter.

    Args:
        source: the rows of a data set.
        root: the folder that their paths are relative to.
        merge: makes one row of two rows for an image.

    Raises:
        InputError: an image is in two splits.
    """
    merged: dict[str, Row] = {}
    for row in source.rows:
        path = os.path.normpath(root.absolute() / row.path)
        if (first := merged.get(path)) is None:
            merged[path] = row
            continue
        split, other = row.split or "train", first.split or "train"
        if split != other:
            raise InputError(
                f"{row.where}: {row.path} is in the split {split}, but in {other} too ({first.where}): keep it in one"
                " of them"
            )
        merged[path] = merge(first, row)
    return replace(source, rows=sorted(merged.values(), key=lambda row: row.path))


def check_exists(data: Path, expected: str) -> None:
    """Refuse data that does not exist, and name what is ``expected``.

    Raises:
        InputError: the path does not exist, or is not a valid path.
    """
    try:
        data.stat()
    except (OSError, ValueError) as error:  # also too long a name, or a NUL byte in it
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{str(data)[:200]}: {reason}: name {expected}") from error


def natural(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """A sort key that puts `class2` before `class10`."""
    parts = re.split(r"([0-9]+)", name.casefold())
    parts[1::2] = [digits.lstrip("0") for digits in parts[1::2]]
    # a number is compared by its length first, since int() refuses very long numbers
    return tuple((len(part) if place % 2 else 0, part) for place, part in enumerate(parts)), name


def label_name(name: str) -> str:
    """A label in Unicode form NFC, since file systems differ in how they write accents."""
    return unicodedata.normalize("NFC", name.strip())
