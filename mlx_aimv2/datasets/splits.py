"""Which images are held out for validation: stratified, and the same on every machine."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from ..errors import InputError
from .rows import SPLITS, Row

NO_LABEL = -1  # images without any label are a class of their own here


def check_fraction(val_fraction: float) -> None:
    """Refuse a fraction that is none.

    Raises:
        InputError: it is not a number from 0 to below 1.
    """
    is_number = isinstance(val_fraction, (int, float)) and not isinstance(val_fraction, bool)
    if not is_number or not 0 <= val_fraction < 1:
        raise InputError(
            f"val_fraction is {val_fraction!r}, but has to be a number from 0 (none) to below 1: 0.2 is usual"
        )


def check_seed(seed: int) -> None:
    """Refuse a seed that no generator takes.

    Raises:
        InputError: it is no whole number, or negative.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed is {seed!r}, but has to be a whole number of at least 0")


def by_split(
    rows: Sequence[Row], labels: Callable[[Row], tuple[int, ...]], val_fraction: float, seed: int
) -> tuple[dict[str, list[Row]], float | None]:
    """Rows by their split, those for validation chosen where the data names none; and the fraction, if so.

    Args:
        rows: one for each image.
        labels: the numbers of a row's labels, of each of which a part is held out.
        val_fraction: that part.
        seed: what chooses it.
    """
    given = any(row.split == "val" for row in rows)
    found: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in rows:
        found[row.split or "train"].append(row)
    if not given:
        out = held_out({row.path: labels(row) for row in found["train"]}, val_fraction, seed)
        found["val"] = [row for row in found["train"] if row.path in out]
        found["train"] = [row for row in found["train"] if row.path not in out]
    return found, None if given else val_fraction


def held_out(labels: Mapping[str, tuple[int, ...]], fraction: float, seed: int) -> set[str]:
    """The images to validate with: about ``fraction`` of every class, and of each with two or more at least one.

    Within a class they are chosen by a hash of seed and path, so neither the order of files nor the folder above
    them matters, and images that are added later leave most others where they were. Images with several labels
    are dealt out class by class, the rarest first (Sechidis et al. 2011, "On the Stratification of Multi-Label
    Data"), and none leaves a class without training images.

    Args:
        labels: path from the folder of the data -> the numbers of its labels.
        fraction: of every class, from 0 to below 1.
        seed: another one gives another choice.
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
