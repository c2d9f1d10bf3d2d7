"""The columns of a table: which one holds the path of an image, its label, its caption, its split."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import InputError
from .options import Columns

IMAGE, LABEL, CAPTION, SPLIT = "image", "label", "caption", "split"
NAMES = {  # what a column is for -> what it is usually called, in small letters
    IMAGE: frozenset(
        """path paths filepath file_path file filename file_name image images image_path imagepath image_file
        image_filename image_name img img_path img_name image""".split()
    ),
    LABEL: frozenset(
        "label labels label_name class classes class_name classname category categories target tag tags".split()
    ),
    CAPTION: frozenset(
        """caption captions text texts sentence sentences description descriptions title comment prompt
        alt_text""".split()
    ),
    SPLIT: frozenset({"split"}),
}
ADDRESSES = frozenset({"url", "urls", "image_url"})
OPTIONS = {use: f"--{use}-column" for use in (IMAGE, LABEL, CAPTION)}
ABSENT = object()  # the value of an image that a table names and says nothing of
CALLED = {IMAGE: "path"}
SHOWN = 8  # names of columns in a message


class NoColumnError(InputError):
    """A table has no column for something."""


def places_of(where: str, names: Sequence[str], value: str, columns: Columns) -> dict[str, int]:
    """The place of each column that is used: of the image, of its value, and of its split, if there is one.

    Args:
        where: what messages call the row with the names, or the file.
        names: of all columns.
        value: what is read of each image: `LABEL` or `CAPTION`.
        columns: those that were chosen.

    Raises:
        NoColumnError: none is called as one is that holds this.
        InputError: several are, or the one that was chosen is not there.
    """
    places = {}
    for use in (IMAGE, value, SPLIT):
        chosen = getattr(columns, use, None)
        if chosen is not None:
            found = [place for place, name in enumerate(names) if name == chosen]
            if not found:
                raise InputError(f"{where}: no column {chosen!r}, as {OPTIONS[use]} says: {_has(names)}")
        else:
            found = [place for place, name in enumerate(names) if plain(name) in NAMES[use]]
        if len(found) > 1:
            both = " and ".join(names[place] for place in found)
            advice = (
                f"choose with {OPTIONS[use]}" if use in OPTIONS and chosen is None else "rename one of them"
            )
            raise InputError(f"{where}: the columns {both} may all hold the {use}: {advice}")
        if found:
            places[use] = found[0]
    return places


def check_places(where: str, places: dict[str, int], names: Sequence[str], value: str) -> None:
    """Refuse a table without a column for the image, or for its value.

    Raises:
        NoColumnError: it is such a one.
    """
    missing = [use for use in (IMAGE, value) if use not in places]
    if IMAGE in missing and any(plain(name) in ADDRESSES for name in names):
        raise NoColumnError(
            f"{where}: it names addresses and no files: download the images, and add a column `path` with their files"
        )
    if missing:
        uses = " and ".join(missing)
        options = " and ".join(OPTIONS[use] for use in missing)
        advice = (
            f"call them path and {value}"
            if len(missing) > 1
            else f"call one of them {CALLED.get(missing[0], value)}"
        )
        other, task = (CAPTION, "contrastive") if value == LABEL else (LABEL, "classify")
        has_other = IMAGE in places and any(plain(name) in NAMES[other] for name in names)
        raise NoColumnError(
            f"{where}: no column for {uses}: {_has(names)}: {advice}, or choose with {options}"
            + (f"; to learn its {other}s: --task {task}" if has_other else "")
        )


def plain(name: str) -> str:
    """The name of a column in small letters, with `_` between its words."""
    return re.sub(r"[\s-]+", "_", name.strip()).casefold()


def _has(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name)[:40] for name in names[:SHOWN]) or "none"
    return f"the columns are {shown}{' …' if len(names) > SHOWN else ''}"
