"""A folder of embeddings in shards, for runs too large for one file: written as it goes, continued, never mixed.

A shard is on disk before the manifest names it, and is removed after it no longer does; one that a killed run wrote
and did not name is taken up. Of each image the folder knows where it is and what its content was: one that has
changed is embedded again, and the shard with its old row is written anew without it.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, OutputError
from ..storage.locks import lock_folder
from .file_marks import FileMark
from .files import Rows, check_grid
from .fingerprint import Fingerprint, check_same
from .manifest import Manifest, check_replaceable, read_manifest, shard_number
from .shard_rows import Row, RowIndex
from .shards import map_vectors, read_shard, write_shard

# A shard is full at so many rows, bytes, or seconds of work.
SHARD_ROWS, SHARD_BYTES, SHARD_S = 10_000, 256 * 2**20, 300
BLOCK = 1024  # rows that are brought together at once


class ShardFolder:
    """A folder of `.npz` shards with a manifest, which a run that was cut short continues.

    Attributes:
        shards: the shards, and how many rows each has.
        unmarked: rows of an older version, which kept no marks of files: of these, images that were written later
            than their shard count as changed, and those that are gone go unnoticed.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Fingerprint,
        rows: int | None = None,
        seconds: float | None = None,
        texts: bool = False,
    ) -> None:
        """Open the folder, or make it.

        Args:
            folder: where the shards are.
            fingerprint: what makes the vectors.
            rows: of a full shard; None for the usual.
            seconds: of work after which a shard is written; None for the usual.
            texts: the names are texts, not files.

        Raises:
            InputError: the folder holds vectors of another model, something else altogether, or is damaged.
            OutputError: the folder cannot be made.
        """
        self.folder, self.fingerprint = folder, dict(fingerprint)
        self._full_rows, self._full_s = rows, seconds
        self.shards: dict[str, int] = {}
        self.unmarked = 0
        self._index = RowIndex(texts, lambda file: (folder / file).stat().st_mtime_ns)
        self._waiting: list[Row] = []
        self._vectors: list[np.ndarray] = []
        self._files: set[str] = set()
        self._named: dict[str, int] | None = None  # what the manifest on disk says
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError.writing(folder, error) from error
        self._open()
        self._since = time.monotonic()

    @property
    def count(self) -> int:
        """How many vectors there are."""
        return len(self._index)

    @property
    def changed(self) -> int:
        """How many images have another content now, as `remaining` found."""
        return self._index.changed

    def done(self) -> set[str]:
        """The names of what is embedded, as they were given."""
        return {row.name for row in self._index}

    def remaining(self, names: Iterable[str]) -> list[str]:
        """Those of ``names`` that have to be embedded; of one file that is named in several ways, the first.

        What is done is known by where the file really is, and by its content where size or time are others.
        """
        return self._index.remaining(names)

    def add(self, name: str, vector: np.ndarray) -> None:
        """Take one vector, in place of an earlier one of the same file; a full shard is written at once.

        Raises:
            InputError: a token grid of another size than the one before.
            OutputError: the shard cannot be written.
        """
        check_grid(name, vector, self._vectors[0].shape if self._vectors else None)
        self._waiting.append(self._index.new(name, len(self._waiting)))
        self._vectors.append(vector)
        held = len(self._waiting)
        late = time.monotonic() - self._since >= (self._full_s or SHARD_S)
        if held >= (self._full_rows or SHARD_ROWS) or held * vector.nbytes >= SHARD_BYTES or late:
            self.flush()

    def gone(self) -> list[str]:
        """The names of images that are no longer where they were."""
        return [row.name for row in self._index.gone()]

    def prune(self) -> int:
        """Forget images that are no longer where they were; how many."""
        rows = self._index.gone()
        for row in rows:
            self._index.drop(row)
        return len(rows)

    def close(self, interrupted: bool = False) -> None:
        """Write what waits, and unless the run was interrupted, forget what changed and could not be embedded.

        Raises:
            OutputError: it cannot be written.
        """
        if not interrupted:
            self.forget_stale()
        self.flush()

    def forget_stale(self) -> None:
        """Forget images that changed and could not be embedded again."""
        self._index.drop_stale()

    def waiting(self) -> list[tuple[str, Row]]:
        """What has been taken and is not written yet."""
        return [(row.name, row) for row in self._waiting if row in self._index]

    def flush(self) -> None:
        """Write what has been taken since the last full shard, and shards anew that hold what no longer counts.

        Raises:
            OutputError: it cannot be written; it can be tried again.
        """
        self._since = time.monotonic()
        waiting = [row for row in self._waiting if row in self._index]
        if not waiting and not self._index.dirty and self.shards == (self._named or {}):
            return
        if self._named is None:  # shards without a manifest would be refused
            self._name({})
        shards, last = dict(self.shards), max((shard_number(file) or 0 for file in self._files), default=-1)
        moved: list[tuple[Row, str, int]] = []
        for old in [*sorted(self._index.dirty), ""]:
            live = waiting if not old else [row for row in self._index if row.shard == old]
            shards.pop(old, None)
            if live:
                last += 1
                file = f"embeddings-{last:05d}.npz"
                self._write(file, live)
                shards[file] = len(live)
                moved += [(row, file, number) for number, row in enumerate(live)]
        self._name(shards)
        for row, file, number in moved:
            row.shard, row.number = file, number
        for old in self._index.dirty:
            with contextlib.suppress(OSError):  # the next run does it
                (self.folder / old).unlink()
        self.shards, self._files = shards, self._files | set(shards)
        self._index.dirty, self._waiting, self._vectors = set(), [], []

    def rows_of(self, names: Iterable[str]) -> list[tuple[str, Row]]:
        """The names that have vectors, in their order, with the rows."""
        found = ((name, self._index.find(name)) for name in names)
        return [(name, row) for name, row in found if row is not None]

    def vectors(self, rows: Sequence[Row]) -> Rows:
        """The vectors of some rows, one at least.

        Raises:
            InputError: they are token grids of different sizes, or a shard is damaged.
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
        kept = marks if len(marks) == len(rows) else None
        names = [row.name for row in rows]
        write_shard(self.folder / file, names, kept, self.vectors(rows), self.fingerprint)

    def _name(self, shards: dict[str, int]) -> None:
        """Let the manifest name these shards, which are on disk."""
        Manifest(self.fingerprint, shards).write(self.folder)
        self._named = shards

    def _open(self) -> None:
        manifest = read_manifest(self.folder)
        if manifest is not None:
            check_same(self.folder, manifest.fingerprint, self.fingerprint)
            self._named = manifest.shards
        self._files = {path.name for path in self.folder.iterdir() if shard_number(path.name) is not None}
        named = self._named or {}
        for file in sorted({*named, *self._files}, key=lambda file: shard_number(file) or 0):
            self.shards[file] = self._load(file, named.get(file))
        self.unmarked = sum(row.mark is None for row in self._index)

    def _load(self, file: str, count: int | None) -> int:
        """Take the rows of a shard; of a file with several rows, the newest counts. How many there are.

        Raises:
            InputError: it cannot be read, or does not belong here.
        """
        path = self.folder / file
        try:
            shard = read_shard(path)
            if count is None:
                check_same(path, shard.made_by, self.fingerprint)
            elif count != len(shard.names):
                raise InputError(f"{path} cannot be read (it has {len(shard.names)} rows instead of {count})")
        except InputError as error:
            state = "is in the manifest and " if count is not None else "is not in the manifest and "
            raise InputError(
                f"{str(error).replace(f'{path} ', f'{path} {state}', 1)}: move it away"
            ) from error
        for number, name in enumerate(shard.names):
            mark = shard.marks[number] if shard.marks is not None else None
            self._index.load(name, mark, file, number)
        return len(shard.names)


class LockedShards:
    """A folder of shards that this run alone writes to, until it is released or forgotten.

    Attributes:
        folder: the shards.
        release: lets other runs write there.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Fingerprint,
        force: bool = False,
        texts: bool = False,
        seconds: float | None = None,
    ) -> None:
        """Lock it and open it; with ``force``, one of another kind begins anew.

        Args:
            folder: where the shards are.
            fingerprint: what makes the vectors.
            force: whether shards that do not fit may be removed.
            texts: the names are texts, not files.
            seconds: of work after which a shard is written; None for the usual.

        Raises:
            InputError: the folder holds vectors of another model, something else altogether, or is damaged.
            OutputError: another run is writing there, or the folder cannot be written to.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError.writing(folder, error) from error
        busy = OutputError(f"another run is writing to {folder}: wait for it, or name another folder")
        self.release = weakref.finalize(self, lock_folder(folder, busy).release)
        try:
            try:
                self.folder = ShardFolder(folder, fingerprint, seconds=seconds, texts=texts)
            except InputError:
                if not force:
                    raise
                check_replaceable(folder)
                for path in folder.iterdir():
                    if not path.name.startswith("."):
                        path.unlink()
                self.folder = ShardFolder(folder, fingerprint, seconds=seconds, texts=texts)
        except BaseException:
            self.release()
            raise
