"""Data in tables: CSV with a header, or one JSON object per line, each row a picture with labels or captions."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..storage.text_files import read_lines, read_text
from .rows import SPLIT_NAMES, Row, label_name

DELIMITERS = ",;\t"
LABEL_SEPARATOR = ";"
COLUMNS = {  # what a column is for -> what it may be called, in any case
    "path": ("path", "image", "file", "filename", "file_name", "image_path", "picture"),
    "label": ("label", "labels", "class"),
    "caption": ("caption", "captions", "text", "sentence", "description"),
    "split": ("split",),
}
LONGEST_ROW = 1_000_000  # characters; beyond it a quote was left open, or it is no table
EXAMPLES = {"label": "cat", "caption": "a cat on a sofa"}
CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")

Fields = Iterator[tuple[str, Mapping[str, Any]]]  # what messages call the row, and its values by column


def read_table(file: Path, split: str | None = None, value: str = "label") -> list[Row]:
    """The rows of a table; their paths are relative to its folder.

    Args:
        file: `.csv` or `.tsv` (the delimiter is found out), `.jsonl` or `.ndjson`.
        split: of rows that do not name theirs.
        value: what is read of each picture: "label" or "caption".

    Raises:
        InputError: the file cannot be read as such a table, has no rows, a row lacks its path or value, or its
            picture does not exist. Rows are counted from 1, the header of a CSV file being the first.
    """
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise InputError(
            f"{file} is no table of pictures: name a folder, or a file that ends in {', '.join(READERS)}"
        )
    rows = [_row(where, values, split, value) for where, values in reader(file.name, read_text(file), value)]
    if not rows:
        raise InputError(f"{file} names no pictures: add a row with path and {value} for each")
    _check_files(file, rows)
    folder = str(file.parent.absolute()) + os.sep
    return [replace(row, path=os.path.normpath(row.path).removeprefix(folder)) for row in rows]


def names_captions(file: Path) -> bool:
    """Whether a table has a column for captions, and none for labels.

    Raises:
        InputError: it cannot be read.
    """
    first = next((line for line in read_lines(file) if line.strip()), "")[:LONGEST_ROW]
    try:
        cells = list(json.loads(first)) if file.suffix.lower() == ".jsonl" else re.split(r'[,;\t"]', first)
    except (ValueError, TypeError, RecursionError):  # whoever reads it will say so
        return False
    names = {str(cell).strip().casefold() for cell in cells}
    return bool(names & set(COLUMNS["caption"])) and not names & set(COLUMNS["label"])


def _check_files(file: Path, rows: list[Row]) -> None:
    missing = [row for row in rows if not _exists(file.parent / row.path)]
    if missing:
        what = "picture of {} does" if len(missing) == 1 else "pictures of {} do"
        raise InputError(
            f"{len(missing)} {what.format(file)} not exist, such as {missing[0].path}"
            f" ({missing[0].where.rpartition(', ')[2]}): paths are relative to the folder of the table"
        )


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # too long a name, or a folder that may not be entered
        return False


def _csv_rows(name: str, text: str, value: str) -> Fields:
    """The rows of a CSV file by column."""
    delimiter, columns, width = _header(name, text, value)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 0
    try:
        for number, cells in enumerate(reader, 1):
            where = f"{name}, row {number}"
            if number == 1 or not any(cell.strip() for cell in cells):
                continue
            if len(cells) != width and any(cells[width:]):
                advice = "put what contains the delimiter into quotes"
                raise InputError(f"{where}: {len(cells)} fields, but the header has {width}: {advice}")
            yield where, {use: cells[place] for use, place in columns.items() if place < len(cells)}
    except csv.Error as error:  # an open quote, text behind one, a field of more than 131,072 characters
        raise InputError(f"{name}, row {number + 1}: no valid CSV ({error}): check the quotes") from error


def _header(name: str, text: str, value: str) -> tuple[str, dict[str, int], int]:
    """The delimiter, the place of each column that is used, and how many there are."""
    first = re.split(r"\r\n|\r|\n", text[:LONGEST_ROW], maxsplit=1)[0]
    for delimiter in DELIMITERS:
        try:
            cells = next(csv.reader([first], delimiter=delimiter), [])
        except csv.Error:
            continue
        names = [cell.strip().casefold() for cell in cells]
        columns = _columns(name, names, value)
        if {"path", value} <= set(columns):
            return delimiter, columns, len(cells)
    raise InputError(
        f"{name}: no columns for path and {value} in the first row ({first[:60]!r}): begin with path,{value}"
    )


def _columns(where: str, names: list[str], value: str) -> dict[str, int]:
    """The place of each column that is used.

    Raises:
        InputError: two names stand for the same.
    """
    columns = {}
    for use in ("path", value, "split"):
        places = [place for place, name in enumerate(names) if name in COLUMNS[use]]
        if len(places) > 1:
            both = " and ".join(names[place] for place in places[:2])
            raise InputError(f"{where}: the columns {both} both stand for the {use}: rename one of them")
        if places:
            columns[use] = places[0]
    return columns


def _jsonl_rows(name: str, text: str, value: str) -> Fields:
    """The rows of a file with one JSON object per line."""
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{name}, row {number}"
        if not line.strip():
            continue
        if len(line) > LONGEST_ROW:
            raise InputError(f"{where}: longer than {LONGEST_ROW:,} characters")
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, absurd nesting
            raise InputError(f"{where}: no valid JSON ({error})") from error
        if not isinstance(record, dict):
            example = json.dumps({"path": "a.jpg", value: EXAMPLES[value]})
            raise InputError(f"{where}: has to be an object such as {example}")
        values = list(record.values())
        columns = _columns(where, [key.strip().casefold() for key in record], value)
        yield where, {use: values[place] for use, place in columns.items()}


READERS = {".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _jsonl_rows, ".ndjson": _jsonl_rows}


def _row(where: str, values: Mapping[str, Any], split: str | None, value: str) -> Row:
    path = values.get("path")
    if path is None or (isinstance(path, str) and not path.strip()):
        raise InputError(f"{where}: no path of a picture")
    path = _clean(where, "path", path)
    named = values.get("split")
    if named is not None and named != "":
        split = SPLIT_NAMES.get(str(named).strip().lower())
        if split is None:
            raise InputError(f"{where}: the split is {str(named)[:40]!r}, but has to be train, val or test")
    read = _labels if value == "label" else _captions
    return Row(path, read(where, values.get(value)), split, where)


def _labels(where: str, value: object) -> tuple[str, ...]:
    """The labels in a cell: one, several separated by `;`, or a JSON list, which alone may be empty."""
    listed = _parsed_list(value)
    if listed is None:
        listed = [x for x in value.split(LABEL_SEPARATOR) if x.strip()] if isinstance(value, str) else [value]
        if not listed or listed == [None]:
            raise InputError(f"{where}: no label")
    return tuple(dict.fromkeys(_label(where, label) for label in listed))


def _captions(where: str, value: object) -> tuple[str, ...]:
    """The captions in a cell: one text, or in JSON a list of them."""
    listed = value if isinstance(value, list) else [value]
    if not listed or listed == [None]:
        raise InputError(f"{where}: no caption")
    return tuple(dict.fromkeys(caption_text(where, caption) for caption in listed))


def caption_text(where: str, value: object) -> str:
    """A caption with one space between its words.

    Raises:
        InputError: it is no text, empty, or holds a control character.
    """
    caption = _clean(where, "caption", " ".join(value.split()) if isinstance(value, str) else value)
    if not caption:
        raise InputError(f"{where}: an empty caption")
    return caption


def _parsed_list(value: object) -> list[Any] | None:
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):  # a label that happens to begin with a bracket
            return None
    return value if isinstance(value, list) else None


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


def table_files(folder: Path) -> list[Path]:
    """The tables in ``folder`` that are not hidden, sorted."""
    files = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in READERS)


def split_tables(folder: Path) -> dict[str, Path]:
    """The tables in ``folder`` that are called after a split.

    Raises:
        InputError: two of them stand for the same split, or there is none for training.
    """
    found: dict[str, Path] = {}
    for file in table_files(folder):
        split = SPLIT_NAMES.get(file.stem.lower())
        if split in found:
            raise InputError(f"{folder} holds both {found[split].name} and {file.name}: keep one of them")
        if split is not None:
            found[split] = file
    if found and "train" not in found:
        raise InputError(f"{folder} holds {next(iter(found.values())).name} but no train.csv or train.jsonl")
    return found
