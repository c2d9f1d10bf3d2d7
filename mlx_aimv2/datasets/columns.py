"""Column names of a table: which column holds the path of an image, its label, its caption, its split."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import InputError
from .options import Columns

IMAGE, LABEL, CAPTION, SPLIT = "image", "label", "caption", "split"
NAMES = {  # content of a column -> its usual names, in lower case
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
ABSENT = object()  # the value of an image that a table names without a value
MOST_NAMES = 8  # names of columns in a message


class NoColumnError(InputError):
    """A table has no column for an image or its value."""


def column_places(where: str, names: Sequence[str], value: str, columns: Columns) -> dict[str, int]:
    """The place of each column to use: of the image, of its value, and of its split, if there is one.

    Args:
        where: what messages call the file, or the row with the names.
        names: of all columns.
        value: `LABEL` or `CAPTION`.
        columns: the columns that the user chose.

    Raises:
        NoColumnError: no column has a usual name for the image, or for its value.
        InputError: several columns have one, or a chosen column does not exist.
    """
    places = {}
    for use in (IMAGE, value, SPLIT):
        chosen = getattr(columns, use, None)
        if chosen is not None:
            matches = [place for place, name in enumerate(names) if name == chosen]
            if not matches:
                raise InputError(f"{where}: no column {chosen!r}, as {OPTIONS[use]} says: {_listed(names)}")
        else:
            matches = [place for place, name in enumerate(names) if _normalized(name) in NAMES[use]]
        if len(matches) > 1:
            both = " and ".join(names[place] for place in matches)
            can_choose = use in OPTIONS and chosen is None
            advice = f"choose with {OPTIONS[use]}" if can_choose else "rename one of them"
            raise InputError(f"{where}: the columns {both} may all hold the {use}: {advice}")
        if matches:
            places[use] = matches[0]
    missing = [use for use in (IMAGE, value) if use not in places]
    if missing:
        raise NoColumnError(f"{where}: {_problem(names, missing, value)}")
    return places


def _problem(names: Sequence[str], missing: Sequence[str], value: str) -> str:
    """What to do about missing columns."""
    normalized = {_normalized(name) for name in names}
    if IMAGE in missing and normalized & ADDRESSES:
        return (
            "it names addresses and no files: download the images, and add a column `path` with their files"
        )
    options = " and ".join(OPTIONS[use] for use in missing)
    name = "path" if missing == [IMAGE] else value
    advice = f"call them path and {value}" if len(missing) > 1 else f"call one of them {name}"
    other, task = (CAPTION, "contrastive") if value == LABEL else (LABEL, "classify")
    problem = f"no column for {' and '.join(missing)}: {_listed(names)}: {advice}, or choose with {options}"
    if IMAGE not in missing and normalized & NAMES[other]:
        problem += f"; to learn its {other}s: --task {task}"
    return problem


def _normalized(name: str) -> str:
    """The name of a column in lower case, with `_` between its words."""
    return re.sub(r"[\s-]+", "_", name.strip()).casefold()


def _listed(names: Sequence[str]) -> str:
    first = ", ".join(repr(name)[:40] for name in names[:MOST_NAMES]) or "none"
    return f"the columns are {first}{' …' if len(names) > MOST_NAMES else ''}"
