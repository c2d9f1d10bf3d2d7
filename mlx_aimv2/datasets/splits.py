"""Train, val and test splits of a data set, and the choice of the images held out for validation."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from ..errors import InputError
from ..events import Skipped
from ..processing.source_image import SourceImage
from .rows import SPLITS, Row, Rows

NO_LABEL = -1  # the class of images without any label


@dataclass(frozen=True)
class Item:
    """An image of a data set.

    Attributes:
        path: of its file, or the name of an image that has none.
        sample: reads an image of a buffer; None for a file.
    """

    path: str
    sample: SourceImage | None = field(default=None, kw_only=True, compare=False, repr=False)

    @property
    def image(self) -> str | SourceImage:
        """What decodes to the image."""
        return self.path if self.sample is None else self.sample


T = TypeVar("T", bound=Item)
T_co = TypeVar("T_co", bound=Item, covariant=True)


@dataclass(frozen=True)
class Splits(Generic[T_co]):
    """Images with labels or captions, in three splits.

    Attributes:
        train: images for training.
        val: images for validation during training; may be empty.
        test: images for evaluation after training; may be empty.
        root: the folder that the paths of a split record are relative to.
        val_fraction: the share of each class that is held out; None where the data has its own split.
        seed: chooses the images held out.
        notices: what the user should know about the data.
        skipped: images that cannot be used, and why. Images that cannot be opened are found by `scan`.
    """

    train: tuple[T_co, ...]
    val: tuple[T_co, ...] = ()
    test: tuple[T_co, ...] = ()
    root: str = "."
    val_fraction: float | None = None
    seed: int = 0
    notices: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def split(self, name: str) -> tuple[T_co, ...]:
        """The images of "train", "val" or "test".

        Raises:
            InputError: the name is another.
        """
        if name not in SPLITS:
            raise InputError(f"there is no split {name!r}: choose among {', '.join(SPLITS)}")
        images: tuple[T_co, ...] = getattr(self, name)
        return images

    def images(self) -> tuple[T_co, ...]:
        """The images of all splits."""
        return self.train + self.val + self.test


def check_split_options(val_fraction: float, seed: int) -> None:
    """Check the share of images to hold out, and the seed that chooses them.

    Raises:
        InputError: the share is not a number from 0 to below 1, or the seed not a whole number of at least 0.
    """
    check_seed(seed)
    is_number = isinstance(val_fraction, (int, float)) and not isinstance(val_fraction, bool)
    if not is_number or not 0 <= val_fraction < 1:
        raise InputError(
            f"val_fraction is {val_fraction!r}, but has to be a number from 0 (none) to below 1: 0.2 is usual"
        )


def check_seed(seed: int) -> None:
    """Check the seed of a random choice.

    Raises:
        InputError: it is not a whole number, or negative.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed is {seed!r}, but has to be a whole number of at least 0")


def check_training(source: Rows, data: Path) -> None:
    """Check that a data set has rows for training.

    Raises:
        InputError: it has none.
    """
    if not any(row.split in (None, "train") for row in source.rows):
        raise InputError(f"{data} holds no images for training: none of its rows is in the split train")


def split_rows(
    source: Rows,
    root: Path,
    make: Callable[[Row], T],
    classes: Callable[[T], tuple[int, ...]],
    val_fraction: float,
    seed: int,
) -> Splits[T]:
    """Put rows into their splits, and hold images out for validation where no row names the split val.

    Args:
        source: one row for each image.
        root: the folder that their paths are relative to.
        make: the image of a row.
        classes: the label numbers of an image; of each label a share is held out.
        val_fraction: that share.
        seed: chooses the images.
    """
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in source.rows:
        rows[row.split or "train"].append(row)
    fraction = None if rows["val"] else val_fraction
    if fraction is not None:
        val = held_out({row.path: classes(make(row)) for row in rows["train"]}, fraction, seed)
        rows["val"] = [row for row in rows["train"] if row.path in val]
        rows["train"] = [row for row in rows["train"] if row.path not in val]
    train, validation, test = (tuple(map(make, rows[split])) for split in SPLITS)
    return Splits(train, validation, test, str(root), fraction, seed, source.notices, source.skipped)


def held_out(labels: Mapping[str, tuple[int, ...]], fraction: float, seed: int) -> set[str]:
    """Choose images for validation: about ``fraction`` of each class, at least one of each class with two or more.

    A hash of seed and path orders the images of a class, so neither the order of files nor the folder above them
    matters, and images that are added later leave most others in their split. Images with several labels are
    distributed class by class, the rarest first (Sechidis et al. 2011, "On the Stratification of Multi-Label Data"),
    and each class keeps a training image.

    Args:
        labels: the label numbers of each path, which is relative to the folder of the data.
        fraction: of each class, from 0 to below 1.
        seed: changes the choice.
    """
    if fraction == 0:
        return set()
    members: dict[int, list[str]] = defaultdict(list)
    for path in sorted(labels, key=lambda path: _rank(path, seed)):
        for label in labels[path] or (NO_LABEL,):
            members[label].append(path)
    remaining = Counter({label: len(paths) for label, paths in members.items()})
    chosen: set[str] = set()
    for label in sorted(members, key=lambda label: (len(members[label]), label)):
        wanted = max(1, math.floor(fraction * len(members[label]) + 0.5))
        wanted -= sum(path in chosen for path in members[label])
        for path in members[label]:
            shared = labels[path] or (NO_LABEL,)
            if wanted > 0 and path not in chosen and all(remaining[other] > 1 for other in shared):
                chosen.add(path)
                remaining.subtract(shared)
                wanted -= 1
    return chosen


def _rank(path: str, seed: int) -> tuple[bytes, str]:
    name = unicodedata.normalize("NFC", path).encode("utf-8", "surrogatepass")
    return hashlib.sha256(b"%d\0" % seed + name).digest(), path
