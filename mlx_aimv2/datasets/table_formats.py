"""Readers of table formats: CSV and its relatives, JSON lines, JSON (also of COCO and Karpathy), Parquet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ..errors import InputError, MissingExtraError
from ..storage.stand_ins import check_stand_in
from ..storage.text_files import read_lines, read_text
from .columns import ABSENT, CAPTION, IMAGE, LABEL, SPLIT, NoColumnError, column_places
from .options import Columns

DELIMITERS = ",\t;|"
SEPARATOR_ROW = re.compile(r'"?sep=(.)"?[\r\n]')  # the first line of a file from Excel
LONGEST_ROW = 1_000_000  # characters; a longer row has an open quote, or the file is not a table
EXAMPLES = {LABEL: "cat", CAPTION: "a cat on a sofa"}
KARPATHY_SPLITS = {"restval": "train"}  # further names of splits in Karpathy's files

Fields = Iterator[tuple[str, Mapping[str, Any]]]  # what messages call the row, and its values by use
Objects = list[dict[str, Any]]


@dataclass(frozen=True)
class Wanted:
    """What to read from a table.

    Attributes:
        value: `LABEL` or `CAPTION`.
        columns: the columns that the user chose.
        name: what messages call the table.
    """

    value: str
    columns: Columns
    name: str


def _read_delimited(file: Path, wanted: Wanted) -> Fields:
    """The rows of a file with a header and one delimiter, such as CSV."""
    name, text = wanted.name, read_text(file)
    start = SEPARATOR_ROW.match(text)
    skipped = 1 if start else 0
    body = text[start.end() :].removeprefix("\n") if start else text
    delimiter, places, width = _header(name, body, start[1] if start else DELIMITERS, wanted)
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True)
    number = skipped
    try:
        for number, cells in enumerate(reader, 1 + skipped):
            where = f"{name}, row {number}"
            if number == 1 + skipped or not any(cell.strip() for cell in cells):
                continue
            if len(cells) != width and any(cells[width:]):
                advice = "put what contains the delimiter into quotes"
                raise InputError(f"{where}: {len(cells)} fields, but the header has {width}: {advice}")
            yield where, {use: cells[place] for use, place in places.items() if place < len(cells)}
    except csv.Error as error:  # an open quote, text behind one, a field of more than 131,072 characters
        raise InputError(f"{name}, row {number + 1}: not valid CSV ({error}): check the quotes") from error


def _header(name: str, text: str, delimiters: str, wanted: Wanted) -> tuple[str, dict[str, int], int]:
    """The delimiter, the places of the columns to use, and how many columns there are."""
    problem: InputError | None = None
    most = 0
    for delimiter in delimiters:
        try:
            cells = next(csv.reader(io.StringIO(text[:LONGEST_ROW], newline=""), delimiter=delimiter), [])
        except csv.Error:
            continue
        names = [cell.strip() for cell in cells]
        try:
            places = column_places(name, names, wanted.value, wanted.columns)
            return delimiter, places, len(cells)
        except InputError as error:
            if len(names) > most:  # the delimiter that splits the row best
                problem, most = error, len(names)
    raise problem or NoColumnError(f"{name}: no header: begin with path,{wanted.value}")


def _read_json_lines(file: Path, wanted: Wanted) -> Fields:
    """The rows of a file with one JSON object per line."""
    for number, line in enumerate(read_lines(file), 1):
        where = f"{wanted.name}, row {number}"
        if not line.strip():
            continue
        if len(line) > LONGEST_ROW:
            raise InputError(f"{where}: longer than {LONGEST_ROW:,} characters")
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, absurd nesting
            raise InputError(f"{where}: not valid JSON ({error})") from error
        yield where, _fields(where, record, wanted)


def _read_json(file: Path, wanted: Wanted) -> Fields:
    """The rows of a JSON file: a list of objects, COCO's captions, or Karpathy's splits of them."""
    try:
        data = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{wanted.name}: not valid JSON ({error})") from error
    if isinstance(data, list):
        for number, record in enumerate(data, 1):
            where = f"{wanted.name}, row {number}"
            yield where, _fields(where, record, wanted)
    else:
        yield from _json_dataset(wanted, data)


def _read_parquet(file: Path, wanted: Wanted) -> Fields:
    """The rows of a Parquet file."""
    check_stand_in(file, InputError)
    try:
        import pyarrow as arrow
        from pyarrow import parquet as files
    except ImportError as error:
        raise MissingExtraError("Reading Parquet files", "pyarrow", "parquet") from error
    try:
        with files.ParquetFile(file) as table:
            names = table.schema_arrow.names
            places = column_places(wanted.name, names, wanted.value, wanted.columns)
            kind = table.schema_arrow.field(places[IMAGE]).type
            types = arrow.types
            if types.is_struct(kind) or types.is_binary(kind) or types.is_large_binary(kind):
                raise InputError(
                    f"{wanted.name} holds the images themselves in its column {names[places[IMAGE]]}: save each as a"
                    " file, and list the files in a table"
                )
            chosen = {use: names[place] for use, place in places.items()}
            batches = table.iter_batches(columns=list(chosen.values()))
            records = (record for batch in batches for record in batch.to_pylist())
            for number, record in enumerate(records, 1):
                yield f"{wanted.name}, row {number}", {use: record[name] for use, name in chosen.items()}
    except (arrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} cannot be read as Parquet: {reason}") from error


def _fields(where: str, record: object, wanted: Wanted) -> dict[str, Any]:
    """The values of a JSON object by use."""
    if not isinstance(record, dict):
        example = json.dumps({"path": "a.jpg", wanted.value: EXAMPLES[wanted.value]})
        raise InputError(f"{where}: has to be an object such as {example}")
    names, values = list(record), list(record.values())
    places = column_places(where, names, wanted.value, wanted.columns)
    return {use: values[place] for use, place in places.items()}


def _json_dataset(wanted: Wanted, data: object) -> Fields:
    """A row for each image of COCO's captions, or of Karpathy's splits."""
    name = wanted.name
    images, annotations = (
        data.get(key) if isinstance(data, dict) else None for key in ("images", "annotations")
    )
    if _are_objects(images) and _are_objects(annotations):
        rows = list(_coco(name, images, annotations))
    elif _are_objects(images) and all(_are_objects(image.get("sentences")) for image in images):
        rows = list(_karpathy(name, images))
    else:
        raise InputError(
            f"{name} is not a list of objects, and not one of COCO's or Karpathy's files with captions: write an"
            f" object for each image, with path and {wanted.value}"
        )
    if wanted.value != CAPTION:
        raise NoColumnError(f"{name} holds captions and no labels: use --task contrastive")
    yield from rows


def _coco(name: str, images: Objects, annotations: Objects) -> Fields:
    captions: dict[Any, list[Any]] = {}
    for number, each in enumerate(annotations, 1):
        if CAPTION not in each or "image_id" not in each:
            raise InputError(
                f"{name}, annotation {number}: no caption: of COCO's files only captions_*.json are read; for labels,"
                " write a table with path and label (several separated by ;)"
            )
        captions.setdefault(each["image_id"], []).append(each[CAPTION])
    for image in images:
        where = f"{name}, image {image.get('id')}"
        yield where, {IMAGE: image.get("file_name"), CAPTION: captions.get(image.get("id"), ABSENT)}


def _karpathy(name: str, images: Objects) -> Fields:
    for number, image in enumerate(images, 1):
        folder, file = image.get("filepath"), image.get("filename")
        path = f"{folder}/{file}" if folder and file else file
        split = image.get(SPLIT)
        texts = [sentence.get("raw") for sentence in image["sentences"]]
        split = KARPATHY_SPLITS.get(str(split), split)
        yield f"{name}, image {number}", {IMAGE: path, CAPTION: texts, SPLIT: split}


def _are_objects(values: object) -> TypeGuard[Objects]:
    return isinstance(values, list) and bool(values) and all(isinstance(value, dict) for value in values)


# Each reader raises InputError if the file is not valid, and MissingExtraError if a package for it is missing.
READERS: dict[str, Callable[[Path, Wanted], Fields]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
    ".json": _read_json,
    **dict.fromkeys((".tab", ".psv", ".txt"), _read_delimited),
}
TABLE_ENDINGS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})  # files that can only be tables
