"""Files of one record for each image, written as the records come: CSV, TSV, JSON, JSON lines, Parquet."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import InputError, MissingExtraError, OutputError
from ..storage.atomic import refuse_existing, replacing
from .files import check_names

Cell = str | float
Columns = Mapping[str, type]  # names of columns, with the type of their cells
PART = ".part"  # in the name of a file that is not whole, and has no other's place to take
ROWS = 8192  # that a Parquet file holds back at most


class Record(Protocol):
    """What there is to say of one image."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""

    def rows(self) -> Sequence[Sequence[Cell]]:
        """As rows of a table."""


class Encoder(Protocol):
    """How records become the bytes of a file."""

    def begin(self) -> bytes:
        """What comes before the first record."""

    def add(self, record: Record) -> bytes:
        """What a record adds."""

    def end(self) -> bytes:
        """What comes after the last one."""


class _Lines:
    """JSON lines."""

    def __init__(self, path: Path, columns: Columns) -> None:
        return

    def begin(self) -> bytes:
        return b""

    def add(self, record: Record) -> bytes:
        return f"{json.dumps(record.to_dict())}\n".encode()

    def end(self) -> bytes:
        return b""


class _Json:
    """One list."""

    def __init__(self, path: Path, columns: Columns) -> None:
        self._before = ""

    def begin(self) -> bytes:
        return b"["

    def add(self, record: Record) -> bytes:
        text, self._before = f"{self._before}\n{json.dumps(record.to_dict())}", ","
        return text.encode()

    def end(self) -> bytes:
        return b"\n]\n"


class _Table:
    """Cells with commas between them, and names of the columns in the first line."""

    delimiter = ","

    def __init__(self, path: Path, columns: Columns) -> None:
        self._columns = tuple(columns)

    def begin(self) -> bytes:
        return self._encoded([self._columns])

    def add(self, record: Record) -> bytes:
        return self._encoded(record.rows())

    def end(self) -> bytes:
        return b""

    def _encoded(self, rows: Sequence[Sequence[Cell]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, delimiter=self.delimiter, lineterminator="\n").writerows(rows)
        return text.getvalue().encode("utf-8", "surrogateescape")  # names of files as they are


class _TabTable(_Table):
    """The same with tabs."""

    delimiter = "\t"


class _Parquet:
    """Rows with types, which it writes to the file by itself."""

    def __init__(self, path: Path, columns: Columns) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {str: pa.string(), float: pa.float64()}
        self._schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[Sequence[Cell]] = []
        self._problem: OSError | None = None  # after which the writer writes nothing any more

    def begin(self) -> bytes:
        return b""

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
        if self._problem is not None:
            raise self._problem
        try:
            self._write_group()
        except OSError as error:
            self._problem = error
            with contextlib.suppress(OSError, ValueError):
                self._writer.close()
            raise

    def _write_group(self) -> None:
        import pyarrow as pa

        if self._rows:
            cells = zip(*self._rows, strict=True)
            arrays = [pa.array(column, kind) for column, kind in zip(cells, self._schema.types, strict=True)]
            self._writer.write_table(pa.table(arrays, schema=self._schema))
            self._rows = []


ENCODERS: dict[str, Callable[[Path, Columns], Encoder]] = {
    ".csv": _Table,
    ".tsv": _TabTable,
    ".json": _Json,
    ".jsonl": _Lines,
    ".parquet": _Parquet,
}


def check_record_file(path: Path, names: Sequence[str] = (), force: bool = False) -> None:
    """Refuse a file that could not be written, before hours of work go into it.

    Args:
        path: of the file.
        names: of the images, which not every format can hold.
        force: whether a file that is there may be replaced.

    Raises:
        InputError: the ending is of no known format, or the format cannot hold one of ``names``.
        ExistsError: something is there.
        OutputError: the folder is not there, or cannot be written to.
        MissingExtraError: the format needs a package that is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in ENCODERS:
        raise InputError(f"{path}: no format ends in {suffix or 'nothing'}; use {', '.join(ENCODERS)}")
    if suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("Writing .parquet", "pyarrow", "parquet") from error
    check_names(path, names)
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file")
    refuse_existing(path, force=force)
    with contextlib.suppress(_Tried), replacing(path):
        raise _Tried


class _Tried(Exception):
    """Ends an attempt to write, and leaves nothing behind."""


def write_records(path: Path, records: Iterable[Record], columns: Columns, force: bool = False) -> None:
    """Write a file of records.

    Args:
        path: of the file; its ending says in which format.
        records: what it is to hold.
        columns: of the rows, where the format has rows.
        force: whether a file that is there may be replaced.

    Raises:
        Aimv2Error: as `check_record_file` refuses, or what is written cannot be.
    """
    file = RecordFile(path, columns, force)
    for record in records:
        file.add(record)
    file.close()


class RecordFile:
    """A file that takes records as they come, and appears when it is closed.

    Attributes:
        path: of the file.
        count: records that it holds.
    """

    def __init__(self, path: Path, columns: Columns, force: bool = False) -> None:
        """Open a partial file beside it.

        Args:
            path: of the file; its ending says in which format.
            columns: of the rows, where the format has rows.
            force: whether a file that is there may be replaced.

        Raises:
            Aimv2Error: as `check_record_file` refuses.
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
        """Take in a record.

        Raises:
            OutputError: it cannot be written, as on a full disk; those before it can.
        """
        self._write(lambda: self._encoder.add(record))
        self.count += 1

    def close(self, interrupted: bool = False) -> None:
        """Let the file appear; without a record, none does.

        Args:
            interrupted: not all records have come. What they would replace is kept then, and `path` becomes that of a
                file beside it.

        Raises:
            OutputError: it cannot be written.
        """
        with contextlib.suppress(_Tried), self._stack:
            self._write(self._encoder.end)
            if not self.count:
                raise _Tried
            if interrupted and self.path.exists():
                self.path = self.path.with_suffix(f"{PART}{self.path.suffix}")
                with replacing(self.path) as beside:
                    shutil.copyfile(self._partial, beside)
                raise _Tried

    def _write(self, encode: Callable[[], bytes]) -> None:
        """Write all that ``encode`` gives, or nothing."""
        whole = self._file.tell()
        try:
            data = encode()
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(whole)
                self._file.seek(whole)
            raise OutputError.writing(self.path, error) from error
