"""Tables as records: delimited text, JSON lines, JSON and Parquet, each row with the names of its columns."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, MissingExtraError
from ..storage.stand_ins import check_stand_in
from ..storage.text_files import read_lines, read_text
from .columns import CAPTION, IMAGE, LABEL, NoColumnError, check_places, places_of
from .json_datasets import json_records
from .options import Columns

DELIMITERS = ",\t;|"
SEPARATOR_ROW = re.compile(r'"?sep=(.)"?[\r\n]')  # what Excel writes in front
LONGEST_ROW = 1_000_000  # characters; beyond it a quote was left open, or it is no table
EXAMPLES = {LABEL: "cat", CAPTION: "a cat on a sofa"}

Fields = Iterator[tuple[str, Mapping[str, Any]]]  # what messages call the row, and its values by use


@dataclass(frozen=True)
class Wanted:
    """What is read of a table.

    Attributes:
        value: `LABEL` or `CAPTION`.
        columns: those that were chosen.
        name: what messages call the table.
    """

    value: str
    columns: Columns
    name: str


def delimited(file: Path, wanted: Wanted) -> Fields:
    """The rows of a file with a header and one delimiter, such as CSV.

    Raises:
        InputError: it is no such file, or a row has more fields than the header.
    """
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
        raise InputError(f"{name}, row {number + 1}: no valid CSV ({error}): check the quotes") from error


def _header(name: str, text: str, delimiters: str, wanted: Wanted) -> tuple[str, dict[str, int], int]:
    """The delimiter, the place of each column that is used, and how many there are."""
    problem: InputError | None = None
    most = 0
    for delimiter in delimiters:
        try:
            cells = next(csv.reader(io.StringIO(text[:LONGEST_ROW], newline=""), delimiter=delimiter), [])
        except csv.Error:
            continue
        names = [cell.strip() for cell in cells]
        try:
            places = places_of(name, names, wanted.value, wanted.columns)
            check_places(name, places, names, wanted.value)
            return delimiter, places, len(cells)
        except InputError as error:
            if len(names) > most:  # what splits the row is the delimiter, and what it lacks the mistake
                problem, most = error, len(names)
    raise problem or NoColumnError(f"{name}: no header: begin with path,{wanted.value}")


def json_lines(file: Path, wanted: Wanted) -> Fields:
    """The rows of a file with one JSON object per line.

    Raises:
        InputError: it is no such file.
    """
    for number, line in enumerate(read_lines(file), 1):
        where = f"{wanted.name}, row {number}"
        if not line.strip():
            continue
        if len(line) > LONGEST_ROW:
            raise InputError(f"{where}: longer than {LONGEST_ROW:,} characters")
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, absurd nesting
            raise InputError(f"{where}: no valid JSON ({error})") from error
        yield where, _fields(where, record, wanted)


def json_file(file: Path, wanted: Wanted) -> Fields:
    """The rows of a JSON file: a list of objects, or one of the forms of `json_records`.

    Raises:
        InputError: it is no such file.
    """
    try:
        data = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{wanted.name}: no valid JSON ({error})") from error
    if isinstance(data, list):
        for number, record in enumerate(data, 1):
            where = f"{wanted.name}, row {number}"
            yield where, _fields(where, record, wanted)
    else:
        yield from json_records(wanted.name, data, wanted.value)


def parquet(file: Path, wanted: Wanted) -> Fields:
    """The rows of a Parquet file.

    Raises:
        MissingExtraError: the package that reads it is not installed.
        InputError: it is no such file, or holds the images themselves.
    """
    check_stand_in(file, InputError)
    try:
        import pyarrow as arrow
        from pyarrow import parquet as files
    except ImportError as error:
        raise MissingExtraError("Reading Parquet files", "pyarrow", "parquet") from error
    try:
        with files.ParquetFile(file) as table:
            names = table.schema_arrow.names
            places = places_of(wanted.name, names, wanted.value, wanted.columns)
            check_places(wanted.name, places, names, wanted.value)
            kind = table.schema_arrow.field(places[IMAGE]).type
            if (
                arrow.types.is_struct(kind)
                or arrow.types.is_binary(kind)
                or arrow.types.is_large_binary(kind)
            ):
                raise InputError(
                    f"{wanted.name} holds the images themselves in its column {names[places[IMAGE]]}: save each as a"
                    " file, and list the files in a table"
                )
            chosen = {use: names[place] for use, place in places.items()}
            number = 0
            for batch in table.iter_batches(columns=list(chosen.values())):
                for record in batch.to_pylist():
                    number += 1
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
    places = places_of(where, names, wanted.value, wanted.columns)
    check_places(where, places, names, wanted.value)
    return {use: values[place] for use, place in places.items()}


READERS: dict[str, Callable[[Path, Wanted], Fields]] = {
    ".csv": delimited,
    ".tsv": delimited,
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".parquet": parquet,
    ".json": json_file,
    ".tab": delimited,
    ".psv": delimited,
    ".txt": delimited,
}
