"""Tables of images with labels or captions: their paths are located and their cells checked."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..messages import counted
from ..sources.folder_scan import Rules
from ..sources.paths import existing_file
from .columns import ABSENT, CAPTION, IMAGE, LABEL, SPLIT, NoColumnError
from .options import Reading
from .rows import SPLIT_NAMES, Row, Rows, label_name
from .table_formats import READERS, Wanted
from .unsupported import hint

LABEL_SEPARATOR = ";"
CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.I)


def read_table(
    file: Path,
    split: str | None = None,
    value: str = LABEL,
    reading: Reading | None = None,
    root: Path | None = None,
) -> Rows:
    """Read a table, without the rows that are excluded.

    Args:
        file: a file with an ending of `READERS`.
        split: the split of rows without one.
        value: `LABEL` or `CAPTION`.
        reading: which columns to use, and the folder that paths are relative to.
        root: the folder that the paths of the rows will be relative to; None for that of the file.

    Raises:
        InputError: the file is not a table, has no rows, a row lacks its path or value, or no image exists. Messages
            count rows from 1, which is the header of a CSV file.
    """
    reading = reading or Reading()
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        advice = hint(file) or f"name a folder, or a file that ends in {', '.join(READERS)}"
        raise InputError(f"{file} is not a table of images: {advice}")
    name = file.relative_to(root).as_posix() if root is not None and file.is_relative_to(root) else file.name
    wanted = Wanted(value, reading.columns, name)
    records = list(reader(file, wanted))
    rows = [_row(where, values, split, value) for where, values in records if values.get(value) is not ABSENT]
    if not rows:
        raise InputError(f"{file} names no images: add a row with path and {value} for each")
    notices = []
    if absent := len(records) - len(rows):
        notices.append(f"{counted(absent, 'image')} of {file} without a {value}: left out")
    rows, missing = _located(file, rows, reading.image_root, (root or file.parent).absolute())
    if missing:
        notices.append(f"{missing:,} of {counted(len(rows), 'image')} of {file} missing: skipped")
    rules = Rules(reading.exclude)
    kept = [row for row in rows if not rules.excludes_below(row.path)]
    if not kept:
        raise InputError(f"{file}: --exclude leaves out all of its {counted(len(rows), 'row')}")
    if len(kept) < len(rows):
        notices.append(f"left out {counted(len(rows) - len(kept), 'row')} of {file}: excluded")
    return Rows(kept, tuple(notices))


def has_caption_column(file: Path, reading: Reading, labels_optional: bool = False) -> bool:
    """Whether a table has a column for captions, and none for labels.

    Args:
        file: the table.
        reading: which columns to use.
        labels_optional: whether the labels may come from elsewhere.

    Raises:
        InputError: it has neither, and ``labels_optional`` is false.
    """
    reader = READERS.get(file.suffix.lower())
    if reader is None or reading.columns.label:
        return False
    problems = []
    for value in (LABEL, CAPTION):
        try:
            next(iter(reader(file, Wanted(value, reading.columns, file.name))), None)
            return value == CAPTION
        except NoColumnError as error:
            problems.append(str(error))
        except InputError:  # the function that reads the table reports it
            return False
    if labels_optional:
        return False
    raise InputError(f"{problems[0]}; for captions, caption or --caption-column")


def _located(file: Path, rows: list[Row], image_root: str | None, root: Path) -> tuple[list[Row], int]:
    """The rows with paths relative to ``root``, and the number of files that do not exist."""
    bases = [Path(image_root).expanduser()] if image_root is not None else _bases(file)
    for base in bases:
        existing = [existing_file(base, row.path) for row in rows]
        if any(existing):
            break
    else:
        raise InputError(_none_exists(file, rows, image_root))
    is_outside = image_root is not None and not base.absolute().is_relative_to(root)
    start = base.absolute() if is_outside else Path(os.path.relpath(base.absolute(), root))
    paths = [os.path.normpath(start / (path or row.path)) for path, row in zip(existing, rows, strict=True)]
    if not is_outside:
        paths = [path.removeprefix(str(root) + os.sep) for path in paths]
    return [replace(row, path=path) for path, row in zip(paths, rows, strict=True)], existing.count(None)


def _bases(file: Path) -> list[Path]:
    """The folders that paths may be relative to: that of the table, then those where other programs put images."""
    folders = [file.parent, *(file.parent / name for name in ("images", file.stem, f"{file.stem}_images"))]
    if file.stem.startswith("captions_"):
        name = file.stem.removeprefix("captions_")
        beside = file.parent.parent
        folders += [beside / name, beside / "images" / name, beside / "images", file.parent / name]
    elif file.suffix.lower() == ".json":
        folders += [file.parent.parent / "images", file.parent.parent]
    return folders


def _none_exists(file: Path, rows: list[Row], image_root: str | None) -> str:
    first = rows[0]
    if ADDRESS.match(first.path):
        return f"{file} names addresses such as {first.path[:60]}: download the images, and name their files"
    what = f"not one of the {counted(len(rows), 'image')} of {file} exists"
    if len(rows) == 1:
        what = f"the only image of {file} does not exist"
    where = f"such as {first.path[:200]} ({first.where.rpartition(', ')[2]})"
    if image_root is not None:
        return f"{what} in --image-root {image_root}, {where}"
    advice = "paths are relative to the folder of the table; --image-root names another"
    if any(existing_file(Path(), row.path) is not None for row in rows):
        advice = "they are relative to the working directory: give --image-root ."
    return f"{what}, {where}: {advice}"


def _row(where: str, values: Mapping[str, Any], split: str | None, value: str) -> Row:
    path = values.get(IMAGE)
    if path is None or (isinstance(path, str) and not path.strip()):
        raise InputError(f"{where}: no path of an image")
    path = _clean(where, "path", path)
    named = values.get(SPLIT)
    if named is not None and named != "":
        split = SPLIT_NAMES.get(str(named).strip().lower())
        if split is None:
            raise InputError(f"{where}: the split is {str(named)[:40]!r}, but has to be train, val or test")
    read = _labels if value == LABEL else _captions
    return Row(path, read(where, values.get(value)), split, where)


def _labels(where: str, value: object) -> tuple[str, ...]:
    """The labels in a cell: one, several separated by `;`, or a JSON list, which may be empty."""
    if isinstance(value, str) and value.strip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):  # a label may begin with a bracket
            value = json.loads(value)
    if isinstance(value, str):
        labels: list[object] = [label for label in value.split(LABEL_SEPARATOR) if label.strip()]
    else:
        labels = value if isinstance(value, list) else [value]
    if labels == [None] or not (labels or isinstance(value, list)):
        raise InputError(f"{where}: no label")
    return tuple(dict.fromkeys(_label(where, label) for label in labels))


def _captions(where: str, value: object) -> tuple[str, ...]:
    """The captions in a cell: one text, or in JSON a list of them."""
    captions = value if isinstance(value, list) else [value]
    if not captions or captions == [None]:
        raise InputError(f"{where}: no caption")
    return tuple(dict.fromkeys(caption_text(where, caption) for caption in captions))


def caption_text(where: str, value: object) -> str:
    """A caption with one space between words.

    Raises:
        InputError: it is not a text, is empty, or contains a control character.
    """
    caption = _clean(where, "caption", " ".join(value.split()) if isinstance(value, str) else value)
    if not caption:
        raise InputError(f"{where}: an empty caption")
    return caption


def _label(where: str, label: object) -> str:
    if isinstance(label, int) and not isinstance(label, bool) and abs(label) < 10**18:
        return str(label)
    name = label_name(_clean(where, "label", label))
    if not name:
        raise InputError(f"{where}: an empty label")
    return name


def _clean(where: str, what: str, value: object) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: the {what} is {str(value)[:40]}, but has to be a text")
    value = value.strip()
    if CONTROL.search(value):
        raise InputError(f"{where}: the {what} {value[:40]!a} holds a control character")
    return value
