"""Writing vectors to a table of a LanceDB database."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..errors import ExistsError, InputError, MissingExtraError, OutputError
from ..storage.atomic import followed
from .files import Rows, has_surrogates, import_pyarrow
from .fingerprint import Fingerprint

LANCEDB = ".lancedb"  # the suffix of a database, which is a folder
TABLE = "embeddings"


def check_lancedb(path: Path, names: Sequence[str], table: str, force: bool) -> None:
    """Refuse a table that cannot be written, before any work goes into it.

    Raises:
        InputError: a name is not UTF-8, or the table has an impossible name.
        ExistsError: the table exists, and ``force`` is not set; or a file has the place of the database.
        MissingExtraError: the package lancedb is not installed.
        OutputError: the folder of the database is missing.
    """
    _import_lancedb()
    for name in names:
        if has_surrogates(name):
            raise InputError(f"{name!r} is not UTF-8, which LanceDB cannot hold: use .npz")
    if not table.replace("_", "").replace("-", "").isalnum() or not table.isascii():
        raise InputError(f"--table {table!r} must be made of letters, digits, _ and -")
    place = followed(path)
    if place.exists() and not place.is_dir():
        raise ExistsError(f"{path} is not a folder: name another")
    if not place.absolute().parent.is_dir():
        raise OutputError(f"{path} cannot be written: there is no folder {place.absolute().parent}")
    if _exists(place, table) and not force:
        raise ExistsError(
            f"{path} has a table {table} already: name another with --table, or replace it with --force"
        )


def write_lancedb(
    path: Path, names: Sequence[str], rows: Rows, fingerprint: Fingerprint, table: str = TABLE
) -> None:
    """Write vectors (N, D) to a table with the columns `path` and `embedding`; replace an existing table.

    The rows are written block by block, as one version of the table. `optimize` then joins small files, and removes
    the replaced version. Other tables of the database stay as they are.

    Raises:
        InputError: token grids, which a table of vectors cannot hold.
        MissingExtraError: the package lancedb is not installed.
        OutputError: the table cannot be written.
    """
    lancedb = _import_lancedb()
    pa, _ = import_pyarrow("Writing")
    if len(rows.shape) != 2:
        raise InputError("a table of LanceDB holds one vector per row: use .npz for token grids")
    kind = pa.list_(pa.float32(), rows.shape[1])
    note = {"fingerprint": json.dumps(fingerprint)}
    schema = pa.schema([("path", pa.string()), ("embedding", kind)], metadata=note)

    def batches() -> Iterator[Any]:
        start = 0
        for block in rows.blocks():
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), rows.shape[1])
            paths = pa.array(list(names[start : start + len(block)]), pa.string())
            yield pa.RecordBatch.from_arrays([paths, vectors], schema=schema)
            start += len(block)

    place = followed(path)
    replaces = _exists(place, table)
    try:
        mode = "overwrite" if replaces else "create"
        written = lancedb.connect(str(place)).create_table(table, batches(), schema=schema, mode=mode)
        with warnings.catch_warnings():  # that readers of the replaced version fail, as is wanted
            warnings.simplefilter("ignore")
            written.optimize(cleanup_older_than=timedelta(0) if replaces else None)
    except (OSError, RuntimeError, ValueError, pa.ArrowException) as error:
        if isinstance(error, InputError | OutputError):
            raise
        raise OutputError(f"{path} cannot be written: {_reason(error)}") from error


def _exists(database: Path, table: str) -> bool:
    """Whether a table has a version; a killed run leaves one without."""
    return (database / f"{table}.lance" / "_versions").is_dir()


def _reason(error: BaseException) -> str:
    """The first line of an error, without the traceback that Arrow puts into it."""
    return str(error).partition(". Detail")[0].partition("\n")[0]


def _import_lancedb() -> Any:
    try:
        import lancedb
    except ImportError as error:
        raise MissingExtraError("Writing to LanceDB", "lancedb", "lancedb") from error
    return lancedb
