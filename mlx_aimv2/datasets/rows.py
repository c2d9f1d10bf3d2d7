"""What every kind of data is read into: one row for an image, with its labels or captions, and its split."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
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
    """An image as the data names it.

    Attributes:
        path: from the folder of the data, with forward slashes; or absolute.
        labels: its labels, or its captions, none twice.
        split: "train", "val" or "test"; None where the data does not say.
        where: what messages call the row, such as `labels.csv, row 4`.
    """

    path: str
    labels: tuple[str, ...]
    split: str | None
    where: str


@dataclass(frozen=True)
class Rows:
    """What some data holds.

    Attributes:
        rows: one for an image.
        notices: what the user should know of it, such as what was left out.
        skipped: images that cannot be used, and why.
    """

    rows: list[Row]
    notices: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()


def check_split(row: Row, other: Row) -> None:
    """Refuse an image that two rows put into different splits.

    Raises:
        InputError: they do.
    """
    one, two = (each.split or "train" for each in (row, other))
    if one != two:
        raise InputError(
            f"{row.where}: {row.path} is in the split {one}, but in {two} too ({other.where}): keep it in one of them"
        )


def check_there(data: Path, what: str) -> None:
    """Refuse data that does not exist; ``what`` says what to name instead.

    Raises:
        InputError: it does not, or its name is none.
    """
    try:
        data.stat()
    except (OSError, ValueError) as error:  # also too long a name, or a NUL byte in it
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{str(data)[:200]}: {reason}: name {what}") from error


def natural(name: str) -> tuple[tuple[tuple[int, str], ...], str]:
    """A key that sorts names with numbers as people do: `class2` before `class10`."""
    parts = re.split(r"([0-9]+)", name.casefold())
    digits = [part.lstrip("0") for part in parts[1::2]]
    parts[1::2] = digits  # a number is compared by its length first, since int() refuses very long ones
    return tuple((len(part) if place % 2 else 0, part) for place, part in enumerate(parts)), name


def label_name(name: str) -> str:
    """A label in the one form in which equal ones are equal: file systems differ in how they write accents."""
    return unicodedata.normalize("NFC", name.strip())
