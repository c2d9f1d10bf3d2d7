"""Images in columns of Parquet tables, such as Hugging Face's `datasets` writes: read in place, forwards."""

from __future__ import annotations

import io
import itertools
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import (
    Advice,
    Aimv2Error,
    BrokenImageError,
    ImageError,
    InputError,
    MissingExtraError,
)
from ..processing.formats import identify, reason
from ..processing.jxl import is_jxl
from ..processing.source_image import SourceImage
from ..storage.stand_ins import LOOK, stand_in
from .containers import Listing
from .extensions import is_image
from .file_state import FileState, check_unchanged, state_of
from .folder_scan import Rules
from .forward import MOST_KEPT, ForwardReader
from .ignored import OWN
from .options import SourceOptions

BUFFER = 2**20  # bytes of a column that are read at once
ROWS = 1  # that are decoded at once
SAMPLED_IMAGES, SAMPLED_ROWS = 8, 64  # that show whether a column holds images
ROWS_FREE = 1_000_000  # a table may have this many rows, and one more for each of its bytes
BYTES, PATH = "bytes", "path"  # the fields of an image that `datasets` writes

Names = tuple[str, ...]  # of a column, and of the fields in it that lead to the images


def list_images(path: str, rules: Rules, options: SourceOptions) -> Listing:
    """The images of a Parquet table, in its order, with ids such as `table.parquet#17`, counted from 0.

    They are the values of a binary column, or of a column of structs with a field `bytes`. A struct without bytes
    may name a file in the folder of the table. A row without an image is an image that fails.

    Raises:
        BrokenImageError: the file is no Parquet table, or damaged.
        ImageError: it is no regular file.
        InputError: the images are in several columns, or the values of the column of ids are not unique.
        MissingExtraError: pyarrow is not installed.
        OSError: the file cannot be read.
    """
    state = state_of(path)
    try:
        with _opened(path) as file:
            return _list(path, file, state, options)
    except Exception as error:
        if not _is_damage(error):
            raise
        raise BrokenImageError(f"not a Parquet table, or damaged ({reason(error)})") from error


def _list(path: str, file: _File, state: FileState, options: SourceOptions) -> Listing:
    if file.is_own:
        return Listing(empty=OWN)
    if not file.rows:
        return Listing(empty="no rows")
    if file.rows > ROWS_FREE + state.size:
        raise BrokenImageError(f"damaged: {state.size:,} bytes cannot hold {file.rows:,} rows")
    columns = {".".join(names): names for names in file.types}
    if options.image_column is None:
        found = file.columns_of_images()
    elif options.image_column not in columns:
        return Listing(empty=f"no column {options.image_column}, but {', '.join(file.schema.names)}")
    elif not _holds_bytes(file.types[columns[options.image_column]]):
        kind = file.types[columns[options.image_column]]
        return Listing(empty=f"its column {options.image_column} holds {kind}, no images")
    else:
        found = [columns[options.image_column]]
    if not found:
        return Listing(empty="no column of images")
    if len(found) > 1:
        listed = ", ".join(".".join(names) for names in found)
        raise InputError(
            f"{path} has several columns of images ({listed})", Advice("choose one with {}", "image_column")
        )
    table = _Table(path, state, found[0], file.starts)
    if options.id_column is None:
        ids: Iterator[str] = (f"{path}#{number}" for number in range(file.rows))
    elif options.id_column in columns:
        ids = _unique(path, options.id_column, file.values(columns[options.id_column]))
    else:
        listed = ", ".join(file.schema.names)
        raise InputError(f"{path} has no column {options.id_column} for the ids, but {listed}")
    return Listing(tuple(SourceImage(id, partial(table.read, n), path) for n, id in enumerate(ids)))


def _unique(path: str, column: str, values: Iterator[tuple[int, Any]]) -> Iterator[str]:
    """The ids in a column.

    Raises:
        InputError: a row has none, or that of another row, or no text or whole number.
    """
    rows: dict[str, int] = {}
    for number, value in values:
        where = f"{path}, row {number}"
        if value is None or value == "":
            raise InputError(f"{where}: no id in the column {column}", Advice("leave out {}", "id_column"))
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            kind = type(value).__name__
            raise InputError(f"{where}: an id is a text or a whole number, but {column} holds {kind}")
        id = str(value)
        if id in rows:
            advice = Advice("choose another {}, or leave it out", "id_column")
            raise InputError(f"{where}: row {rows[id]} has the id {id} too", advice)
        rows[id] = number
        yield id


@contextmanager
def _opened(path: str) -> Iterator[_File]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise MissingExtraError("Reading Parquet tables", "pyarrow", "parquet") from error
    with Path(path).open("rb") as stream:  # pyarrow itself takes no names that are not UTF-8
        kind = stand_in(stream.read(LOOK))
        if kind is not None:
            raise BrokenImageError(f"not a Parquet table, but {kind}")
        with ParquetFile(stream, buffer_size=BUFFER, pre_buffer=False) as file:
            yield _File(file)


class _File:
    """An open table.

    Attributes:
        schema: of pyarrow.
        types: of all columns and the fields in them.
        starts: the number of the first row of each row group, and how many rows there are.
    """

    def __init__(self, file: Any) -> None:
        """Take a `pyarrow.parquet.ParquetFile`."""
        self._file, self.schema = file, file.schema_arrow
        groups = (file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
        self.starts = [0, *itertools.accumulate(groups)]
        self.types = dict(_types((), self.schema))

    @property
    def rows(self) -> int:
        """How many rows there are, as the file says."""
        return self.starts[-1]

    @property
    def is_own(self) -> bool:
        """Whether this program has written the table: it holds vectors."""
        return b"fingerprint" in (self.schema.metadata or {}) and self.schema.names == ["path", "embedding"]

    def values(
        self, names: Names, groups: list[int] | None = None, skip: int = 0
    ) -> Iterator[tuple[int, Any]]:
        """The values of a column, or a field in it, with their numbers from ``skip`` on; bytes, a dict, or None."""
        number = 0
        for batch in self._file.iter_batches(ROWS, groups, [".".join(names)], use_threads=False):
            column = batch.column(batch.schema.get_all_field_indices(names[0])[0])
            for row in column:
                if number >= skip:
                    value = row.as_py()
                    for name in names[1:]:
                        value = value[name] if value is not None else None
                    yield number, value
                number += 1

    def columns_of_images(self) -> list[Names]:
        """The columns of bytes of which one of the first values is an image, or all are missing."""
        found: list[Names] = []
        for names, kind in self.types.items():
            if names[:-1] not in found and _holds_bytes(kind) and self._seems_to_hold_images(names):
                found.append(names)
        return found

    def _seems_to_hold_images(self, names: Names) -> bool:
        sample: list[Any] = []
        try:
            for _, value in itertools.islice(self.values(names), SAMPLED_ROWS):
                if value is not None:
                    sample.append(value)
                if len(sample) == SAMPLED_IMAGES:
                    break
        except Exception as error:
            if not _is_damage(error):  # reading the images reports damage
                raise
        return not sample or any(map(_is_image, sample))


class _Table:
    """A table whose images are read when they are decoded."""

    def __init__(self, path: str, state: FileState, names: Names, starts: list[int]) -> None:
        self._path, self._state, self._names, self._starts = path, state, names, starts
        self._reader = ForwardReader(self._values, seeks=lambda a, b: self._group(a) < self._group(b))
        # by row groups: the first row that is lost, and the reason
        self._damage: dict[int, tuple[int, str]] = {}

    def read(self, number: int) -> bytes | str:
        """The encoded image of a row, or the path of its file."""
        check_unchanged(self._path, self._state, "table")
        first, why = self._damage.get(self._group(number), (self._starts[-1], ""))
        if number >= first:
            raise BrokenImageError(f"the table is damaged here ({why})")
        value = self._reader.get(number)
        content, file = (value.get(BYTES), value.get(PATH)) if isinstance(value, dict) else (value, None)
        if content is not None:
            return content
        if not file:
            raise ImageError("the row has no image")
        return self._beside(file)

    def _group(self, number: int) -> int:
        return bisect_right(self._starts, number) - 1

    def _values(self, start: int) -> Iterator[tuple[int, Any]]:
        """The values from a row on, and a few before it, for threads that ask for them later."""
        with _opened(self._path) as file:
            for group in range(self._group(start), len(self._starts) - 1):
                first = next_row = self._starts[group]
                try:
                    for number, value in file.values(self._names, [group], start - MOST_KEPT - first):
                        yield first + number, value
                        next_row = first + number + 1
                except Exception as error:
                    if not _is_damage(error):
                        raise
                    self._damage[group] = next_row, reason(error)
                    raise BrokenImageError(f"the table is damaged here ({reason(error)})") from error

    def _beside(self, name: str) -> str:
        """The path of a file that a row names.

        Raises:
            ImageError: it is not in the folder of the table, or missing.
        """
        folder = os.path.realpath(os.path.dirname(self._path))  # noqa: PTH120 - of a name as the user wrote it
        path = os.path.realpath(Path(folder, name))
        if not Path(path).is_relative_to(folder):
            raise ImageError(f"the row has no bytes, and its file {name} is outside the table's folder")
        if not os.path.lexists(path):
            raise ImageError(f"the row has no bytes, and its file {name} is not in the table's folder")
        return path


def _types(names: Names, fields: Any) -> Iterator[tuple[Names, Any]]:
    """Columns and the fields in them, with their types in memory."""
    from pyarrow import types

    for field in fields:
        kind = getattr(field.type, "storage_type", field.type)
        if types.is_dictionary(kind):
            kind = kind.value_type
        yield (*names, field.name), kind
        if types.is_struct(kind):
            yield from _types((*names, field.name), kind)


def _holds_bytes(kind: Any) -> bool:
    """Whether the values of a type are bytes, or a struct of an encoded image."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == BYTES and _holds_bytes(field.type) for field in kind)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _is_image(value: bytes | Mapping[str, Any]) -> bool:
    if not isinstance(value, bytes):
        content, name = value.get(BYTES), value.get(PATH)
        return _is_image(content) if content is not None else isinstance(name, str) and is_image(name)
    if is_jxl(value):  # its plugin would decode the pixels
        return True
    try:
        identify(io.BytesIO(value))
    except BrokenImageError:
        return False
    except Exception:  # noqa: BLE001 - a package for it is missing, or the header is damaged
        return True
    return True


def _is_damage(error: Exception) -> bool:
    """Whether an exception of pyarrow says that a file is damaged."""
    if isinstance(error, Aimv2Error) or (isinstance(error, OSError) and error.errno is not None):
        return False
    from pyarrow import ArrowException

    return isinstance(error, (ArrowException, OSError, ValueError))
