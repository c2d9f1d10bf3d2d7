"""A folder of vectors in shards: a run writes it step by step, a later run continues it; other vectors are refused.

A shard is on disk before the manifest names it, and is removed after the manifest no longer names it. The next run
adopts a complete shard that a killed run did not name. An image whose content has changed is embedded again, and the
shard with its old row is rewritten without this row.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from filelock import BaseFileLock

from ..errors import InputError, OutputError
from ..storage.locks import lock_folder
from .files import Rows, check_grid
from .fingerprint import Fingerprint, check_same
from .shard_rows import FileMark, Row, RowIndex
from .shards import (
    Manifest,
    check_replaceable,
    map_vectors,
    read_manifest,
    read_shard,
    shard_number,
    write_shard,
)

# A shard is full at so many rows, bytes, or seconds of work.
SHARD_ROWS, SHARD_BYTES, SHARD_S = 10_000, 256 * 2**20, 300
BLOCK = 1024  # rows that are read together


class ShardFolder:
    """A folder of `.npz` shards with a manifest.

    Attributes:
        index: the rows of the shards, and those that wait to be written.
        shards: the number of rows by the file name of the shard.
        full_rows, full_s: the rows, or seconds of work, after which a shard is written.
    """

    def __init__(self, folder: Path, fingerprint: Fingerprint, texts: bool = False) -> None:
        """Open the folder, or create it.

        Args:
            folder: of the shards.
            fingerprint: of the vectors.
            texts: the names are texts, not files.

        Raises:
            InputError: the folder holds vectors of another model or other files, or is damaged.
            OutputError: the folder cannot be created.
        """
        self.folder, self.fingerprint = folder, dict(fingerprint)
        self.full_rows, self.full_s = SHARD_ROWS, SHARD_S
        self.shards: dict[str, int] = {}
        self.index = RowIndex(texts, lambda file: (folder / file).stat().st_mtime_ns)
        self._waiting: list[Row] = []
        self._vectors: list[np.ndarray] = []
        self._named: dict[str, int] | None = None  # the shards in the manifest on disk
        self._lock: BaseFileLock | None = None
        _make(folder)
        manifest = read_manifest(folder)
        if manifest is not None:
            check_same(folder, manifest.fingerprint, self.fingerprint)
            self._named = manifest.shards
        self._files = {path.name for path in folder.iterdir() if shard_number(path.name) is not None}
        named = self._named or {}
        for file in sorted({*named, *self._files}, key=lambda file: shard_number(file) or 0):
            self.shards[file] = self._load(file, named.get(file))
        self._since = time.monotonic()

    @classmethod
    def locked(
        cls, folder: Path, fingerprint: Fingerprint, *, force: bool = False, texts: bool = False
    ) -> ShardFolder:
        """Open a folder that no other run writes to until `release`; with ``force``, remove shards that do not fit.

        Raises:
            InputError: the folder holds vectors of another model or other files, or is damaged.
            OutputError: another run writes there, or the folder cannot be written.
        """
        _make(folder)
        busy = OutputError(f"another run is writing to {folder}: wait for it, or name another folder")
        with contextlib.ExitStack() as on_error:
            lock = lock_folder(folder, busy)
            on_error.callback(lock.release)
            try:
                shards = cls(folder, fingerprint, texts)
            except InputError:
                if not force:
                    raise
                check_replaceable(folder)
                for path in folder.iterdir():
                    if not path.name.startswith("."):
                        path.unlink()
                shards = cls(folder, fingerprint, texts)
            on_error.pop_all()
        shards._lock = lock  # which its garbage collection releases too
        return shards

    def release(self) -> None:
        """Let other runs write to the folder."""
        if self._lock is not None:
            self._lock.release()

    def add(self, name: str, vector: np.ndarray) -> None:
        """Add a vector, in place of an earlier vector of the same file; write the shard if it is full.

        Raises:
            InputError: a token grid of another size than the previous one.
            OutputError: the shard cannot be written.
        """
        check_grid(name, vector, self._vectors[0].shape if self._vectors else None)
        self._waiting.append(self.index.new(name, len(self._waiting)))
        self._vectors.append(vector)
        count = len(self._waiting)
        late = time.monotonic() - self._since >= self.full_s
        if count >= self.full_rows or count * vector.nbytes >= SHARD_BYTES or late:
            self.flush()

    def close(self, interrupted: bool = False) -> None:
        """Write the last shard; after a complete run, drop the old vectors of images that could not be embedded."""
        if not interrupted:
            self.index.drop_stale()
        self.flush()

    def waiting(self) -> list[tuple[str, Row]]:
        """The names and rows that are not written yet."""
        return [(row.name, row) for row in self._waiting if row in self.index]

    def flush(self) -> None:
        """Write the rows since the last full shard, and rewrite shards with invalid rows.

        Raises:
            OutputError: they cannot be written; a later call can try again.
        """
        self._since = time.monotonic()
        waiting = [row for _, row in self.waiting()]
        if not waiting and not self.index.dirty and self.shards == (self._named or {}):
            return
        if self._named is None:  # shards without a manifest would be refused
            Manifest(self.fingerprint, {}).write(self.folder)
            self._named = {}
        shards, last = dict(self.shards), max((shard_number(file) or 0 for file in self._files), default=-1)
        moved: list[tuple[Row, str, int]] = []
        for old in [*sorted(self.index.dirty), ""]:
            valid = waiting if not old else [row for row in self.index if row.shard == old]
            shards.pop(old, None)
            if valid:
                last += 1
                file = f"embeddings-{last:05d}.npz"
                self._write(file, valid)
                shards[file] = len(valid)
                moved += [(row, file, number) for number, row in enumerate(valid)]
        Manifest(self.fingerprint, shards).write(self.folder)
        self._named = shards
        for row, file, number in moved:
            row.shard, row.number = file, number
        for old in self.index.dirty:
            with contextlib.suppress(OSError):  # the next run does it
                (self.folder / old).unlink()
        self.shards, self._files = shards, self._files | set(shards)
        self.index.dirty, self._waiting, self._vectors = set(), [], []

    def vectors(self, rows: Sequence[Row]) -> Rows:
        """The vectors of ``rows``, at least one.

        Raises:
            InputError: token grids of different sizes, or a shard is damaged.
        """
        files = {row.shard for row in rows if row.shard}
        maps: dict[str, Any] = {file: map_vectors(self.folder / file) for file in files}
        maps[""] = self._vectors
        shapes = {maps[row.shard][row.number].shape for row in rows}
        if len(shapes) > 1:
            raise InputError(
                f"{self.folder} holds token grids of different sizes, and one file holds those of one"
            )

        def blocks() -> Iterator[np.ndarray]:
            for start in range(0, len(rows), BLOCK):
                yield np.stack([maps[row.shard][row.number] for row in rows[start : start + BLOCK]])

        return Rows((len(rows), *shapes.pop()), blocks)

    def _write(self, file: str, rows: Sequence[Row]) -> None:
        for row in rows:
            if isinstance(row.mark, Future):
                row.mark = row.mark.result()
        marks = [row.mark for row in rows if isinstance(row.mark, FileMark)]
        names = [row.name for row in rows]
        complete = marks if len(marks) == len(rows) else None
        write_shard(self.folder / file, names, complete, self.vectors(rows), self.fingerprint)

    def _load(self, file: str, count: int | None) -> int:
        """Load the rows of a shard, ``count`` according to the manifest, and return their number.

        Of several rows of one file, the last is valid.

        Raises:
            InputError: the shard cannot be read, or has other vectors than the folder.
        """
        path = self.folder / file
        try:
            shard = read_shard(path)
            if count is None:
                check_same(path, shard.fingerprint, self.fingerprint)
            elif count != len(shard.names):
                raise InputError(f"{path} has {len(shard.names)} rows instead of {count}")
        except InputError as error:
            state = "is in the manifest" if count is not None else "is not in the manifest"
            raise InputError(f"{file} {state} and cannot be used: move it away ({error})") from error
        for number, name in enumerate(shard.names):
            mark = shard.marks[number] if shard.marks is not None else None
            self.index.load(name, mark, file, number)
        return len(shard.names)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.writing(folder, error) from error
