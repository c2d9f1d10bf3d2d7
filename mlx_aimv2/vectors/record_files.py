"""Files with a record for each image, such as those of `classify -o`: CSV, TSV, JSON, JSON lines, Parquet."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import OutputError
from ..storage.atomic import replacing
from .files import check_file, import_pyarrow

Cell = str | float
Columns = Mapping[str, type]  # names of columns, with the type of their cells
PART = ".part"  # in the name of the file of an interrupted run, if another file has its place
ROWS = 8192  # in a group of a Parquet file


class Record(Protocol):
    """The results of one image."""

    def to_dict(self) -> dict[str, Any]:
        """The entry of a JSON file, as plain values."""

    def rows(self) -> Sequence[Sequence[Cell]]:
        """The rows of a table."""


class _Encoder:
    """The bytes of a file, record by record; this one writes JSON lines."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self._columns = columns

    def begin(self) -> bytes:
        return b""

    def add(self, record: Record) -> bytes:
        return f"{json.dumps(record.to_dict())}\n".encode()

    def end(self) -> bytes:
        return b""


class _Json(_Encoder):
    """One list."""

    _separator = ""

    def begin(self) -> bytes:
        return b"["

    def add(self, record: Record) -> bytes:
        text, self._separator = f"{self._separator}\n{json.dumps(record.to_dict())}", ","
        return text.encode()

    def end(self) -> bytes:
        return b"\n]\n"


class _Csv(_Encoder):
    """Cells with a delimiter between them, and the names of the columns in the first line."""

    delimiter = ","

    def begin(self) -> bytes:
        return self._encoded([tuple(self._columns)])

    def add(self, record: Record) -> bytes:
        return self._encoded(record.rows())

    def _encoded(self, rows: Sequence[Sequence[Cell]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, delimiter=self.delimiter, lineterminator="\n").writerows(rows)
        return text.getvalue().encode("utf-8", "surrogateescape")  # the bytes of file names


class _Tsv(_Csv):
    delimiter = "\t"


class _Parquet(_Encoder):
    """Typed columns. pyarrow writes to the file, so there are no bytes to return."""

    def __init__(self, path: Path, columns: Columns) -> None:
        pa, pq = import_pyarrow("Writing")
        types = {str: pa.string(), float: pa.float64()}
        self._schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[Sequence[Cell]] = []
        self._problem: OSError | None = None  # of the first failure, after which nothing more is written

    def add(self, record: Record) -> bytes:
        self._rows += record.rows()
        if len(self._rows) >= ROWS:
            self._write()
        return b""

    def end(self) -> bytes:
        self._write()
        self._writer.close()
        return b""

    def _write(self) -> None:
        import pyarrow as pa

        if self._problem is not None:
            raise self._problem
        if not self._rows:
            return
        cells = zip(*self._rows, strict=True)
        arrays = [pa.array(column, kind) for column, kind in zip(cells, self._schema.types, strict=True)]
        try:
            self._writer.write_table(pa.table(arrays, schema=self._schema))
        except OSError as error:
            self._problem = error
            with contextlib.suppress(OSError, ValueError):
                self._writer.close()
            raise
        self._rows = []


ENCODERS: dict[str, type[_Encoder]] = {
    ".csv": _Csv,
    ".tsv": _Tsv,
    ".json": _Json,
    ".jsonl": _Encoder,
    ".parquet": _Parquet,
}


def check_record_file(path: Path, names: Sequence[str] = (), force: bool = False) -> None:
    """Refuse a file of records, as `check_file` does."""
    check_file(path, ENCODERS, names, force)


class _Discard(Exception):
    """Ends the `replacing` of a file without a new file."""


class RecordFile:
    """A file that is written record by record, and appears when it is closed.

    Attributes:
        path: of the file.
        count: the number of its records.
    """

    def __init__(self, path: Path, columns: Columns, force: bool = False) -> None:
        """Open a partial file.

        Args:
            path: of the file, whose suffix names the format.
            columns: of the rows, in a format with rows.
            force: replace an existing file.

        Raises:
            Aimv2Error: as in `check_record_file`.
        """
        check_record_file(path, force=force)
        self.path, self.count = path, 0
        self._stack = contextlib.ExitStack()
        self._partial = self._stack.enter_context(replacing(path))
        # without a buffer, which a full disk would leave full
        self._file = self._stack.enter_context(self._partial.open("wb", buffering=0))
        self._encoder = ENCODERS[path.suffix.lower()](self._partial, columns)
        self._write(self._encoder.begin)

    def add(self, record: Record) -> None:
        """Write a record.

        Raises:
            OutputError: it cannot be written, as on a full disk; `close` still completes the file without it.
        """
        self._write(lambda: self._encoder.add(record))
        self.count += 1

    def close(self, interrupted: bool = False) -> None:
        """Complete the file; without a record there is no file.

        Args:
            interrupted: some records are missing. An existing file is not replaced then, and `path` becomes the path
                of a file beside it.

        Raises:
            OutputError: the file cannot be written.
        """
        with contextlib.suppress(_Discard), self._stack:
            self._write(self._encoder.end)
            if not self.count:
                raise _Discard
            if interrupted and self.path.exists():
                self.path = self.path.with_suffix(f"{PART}{self.path.suffix}")
                with replacing(self.path) as beside:
                    shutil.copyfile(self._partial, beside)
                raise _Discard

    def _write(self, encode: Callable[[], bytes]) -> None:
        """Write all bytes of ``encode``, or nothing."""
        end = self._file.tell()
        try:
            data = encode()
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
                self._file.seek(end)
            raise OutputError.writing(self.path, error) from error
