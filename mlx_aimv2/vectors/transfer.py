"""Vectors from a folder of shards, or a file, to a file of another format or a database."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..storage.atomic import followed
from .files import Rows, check_target, write
from .lance import LANCEDB, TABLE, check_lancedb, write_lancedb
from .reading import read_vectors
from .stored import StoredVectors


def transfer(source: Path, target: Path, force: bool = False, table: str | None = None) -> int:
    """Write the vectors of a folder or file in the format of another; return their number.

    Rows, order, names, dtype and fingerprint stay. The vectors of a folder are read block by block.

    Args:
        source: a folder of shards, or a file that `read_vectors` reads.
        target: a file of a format of `WRITERS`, or a LanceDB database: a folder whose name ends in `.lancedb`.
        force: replace an existing file, or table.
        table: the table of a database; None for `TABLE`.

    Raises:
        InputError: there are no vectors, a shard is damaged, the format cannot hold them, or a file has no table.
        ExistsError: the target exists, and ``force`` is not set.
        OutputError: it cannot be written.
        MissingExtraError: a format needs a package that is not installed.
    """
    source, target = source.expanduser(), target.expanduser()
    is_database = target.suffix.lower() == LANCEDB
    if table is not None and not is_database:
        raise InputError(f"--table is for a LanceDB database, and {target} is a file: leave it out")
    table = TABLE if table is None else table
    check_lancedb(target, (), table, force) if is_database else check_target(target, (), force)
    if followed(source).is_dir():
        stored = StoredVectors(followed(source))
        names, rows, fingerprint = stored.names, stored.rows, stored.fingerprint
    else:
        vectors = read_vectors(source)
        names, fingerprint = list(vectors.paths), vectors.fingerprint
        rows = Rows(vectors.embeddings.shape, lambda: [vectors.embeddings])
    if is_database:
        check_lancedb(target, names, table, force)
        write_lancedb(target, names, rows, fingerprint, table)
    else:
        check_target(target, names, force)
        write(target, names, rows, fingerprint)
    return len(names)
