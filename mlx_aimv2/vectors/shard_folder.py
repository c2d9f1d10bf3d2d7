"""A folder of vectors in shards: a run writes it step by step, a later run continues it; other vectors are refused.

A shard is on disk before the manifest names it, and is removed after the manifest no longer names it. The next run
adopts a complete shard that a killed run did not name. An image whose content has changed is embedded again, and the
shard with its old row is rewritten without this row. Shards are written in a thread while the next vectors come in.

A rank writes only to its own folder, and reads the whole one. A run that opens the whole folder takes over what ranks
have written.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import BaseFileLock

from ..errors import InputError, OutputError
from ..storage.locks import lock_folder
from .failures import Failures
from .files import Rows, check_grid
from .fingerprint import Fingerprint, check_same
from .manifest import (
    FAILURES,
    MANIFEST,
    Entry,
    Manifest,
    check_replaceable,
    in_order,
    rank_folders,
    read_manifests,
    shard_number,
)
from .shard_rows import FileMark, Row, RowIndex
from .shards import map_vectors, read_shard, write_shard

# A shard is full at so many rows, bytes, or seconds of work.
SHARD_ROWS, SHARD_BYTES, SHARD_S = 10_000, 256 * 2**20, 300
BLOCK = 1024  # rows that are read together
SHARD_FORMAT = "safetensors"  # needs no other package, is mapped into memory, and most programs read it
MOMENT_S, PATIENCE_S = 0.05, 5.0  # to wait for a lock; the latter if another process may hold it for a moment


class FolderBusyError(OutputError):
    """Another run writes to the folder."""


@dataclass(frozen=True)
class _Batch:
    """Rows that are written together: those of each new shard, and the shards that these replace."""

    shards: dict[str, list[Row]]
    replaced: frozenset[str]
    waiting: list[Row]


class ShardFolder:
    """A folder of shards with a manifest.

    Attributes:
        index: the rows of the shards, and those that wait to be written.
        shards: what the manifest is to name.
        failures: the images that have no vector.
        lost: the rows of shards that the manifest names and that are gone.
        unmerged: the folders of ranks whose shards the manifest of the whole folder does not name yet.
        full_rows, full_s: the rows, or seconds of work, after which a shard is written.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Fingerprint,
        texts: bool = False,
        shard_format: str | None = None,
        rank: str = "",
    ) -> None:
        """Open the folder, or create it.

        Args:
            folder: of the shards.
            fingerprint: of the vectors.
            texts: the names are texts, not files.
            shard_format: of new shards; None for that of the folder.
            rank: the name of the folder to write to, if this is one of several processes.

        Raises:
            InputError: the folder holds vectors of another model or other files, or is damaged.
            OutputError: the folder cannot be created.
        """
        self.folder, self.fingerprint = folder, dict(fingerprint)
        self.full_rows, self.full_s = SHARD_ROWS, SHARD_S
        self.shards: dict[str, Entry] = {}
        self.index = RowIndex(texts, lambda file: (folder / file).stat().st_mtime_ns)
        self.lost, self._home = 0, folder / rank
        self._prefix, self._texts = f"{rank}/" if rank else "", texts
        self._waiting: list[Row] = []
        self._writing: tuple[_Batch, Future[dict[str, Entry]]] | None = None
        self._pool = ThreadPoolExecutor(1)
        self._locks: list[BaseFileLock] = []
        _make(self._home)
        manifests = read_manifests(folder)
        for name, manifest in manifests.items():
            check_same(folder / name, manifest.fingerprint, self.fingerprint)
        ranks = rank_folders(folder)
        # the shards that the manifest on disk names, and the folders of ranks that it does not contain yet
        self._named = manifests[rank].shards if rank in manifests else None
        self.unmerged = [] if rank else [name for name in manifests if name]
        self._format = shard_format or _format_of(manifests.get("") or next(iter(manifests.values()), None))
        self._load_all(manifests, [rank] if rank else ["", *ranks])
        others = [folder / name / FAILURES for name in ([""] if rank else ranks)]
        self.failures = Failures(self._home / FAILURES, others)
        self._merged_failures = [] if rank else [path for path in others if path.exists()]
        self._since = time.monotonic()

    @classmethod
    def locked(
        cls,
        folder: Path,
        fingerprint: Fingerprint,
        *,
        force: bool = False,
        texts: bool = False,
        shard_format: str | None = None,
        rank: str = "",
        patience_s: float = MOMENT_S,
    ) -> ShardFolder:
        """Open a folder that no other run writes to until `release`; with ``force``, remove shards that do not fit.

        Raises:
            InputError: the folder holds vectors of another model or other files, or is damaged.
            FolderBusyError: another run writes there.
            OutputError: the folder cannot be written.
        """
        home = folder / rank
        _make(home)
        with contextlib.ExitStack() as on_error:
            locks = []
            for each in [home] if rank else [folder, *(folder / name for name in rank_folders(folder))]:
                busy = FolderBusyError(
                    f"another run is writing to {each}: wait for it, or name another folder"
                )
                locks.append(lock_folder(each, busy, patience_s if each == home else MOMENT_S))
                on_error.callback(locks[-1].release)
            try:
                shards = cls(folder, fingerprint, texts, shard_format, rank)
            except InputError:
                if not force:
                    raise
                check_replaceable(folder)
                for path in folder.iterdir():
                    if not path.name.startswith("."):
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                shards = cls(folder, fingerprint, texts, shard_format, rank)
            on_error.pop_all()
        shards._locks = locks  # which their garbage collection releases too
        return shards

    def release(self) -> None:
        """Let other runs write to the folder."""
        for lock in self._locks:
            lock.release()

    def add(self, name: str, vector: np.ndarray) -> None:
        """Add a vector, in place of an earlier vector of the same file; begin to write the shard if it is full.

        Raises:
            InputError: a token grid of another size than the previous one.
            OutputError: an earlier shard could not be written.
        """
        self.settle(wait=False)
        shape = (
            None if not self._waiting or self._waiting[0].vector is None else self._waiting[0].vector.shape
        )
        check_grid(name, vector, shape)
        self._waiting.append(self.index.new(name, vector))
        count = len(self._waiting)
        late = time.monotonic() - self._since >= self.full_s
        if count >= self.full_rows or count * vector.nbytes >= SHARD_BYTES or late:
            self._begin()

    def close(self, interrupted: bool = False) -> None:
        """Write the last shard; after a complete run, drop the old vectors of images that could not be embedded."""
        self.settle()
        if not interrupted:
            self.index.drop_stale()
        self.flush()
        self.failures.keep(lambda failure: self.index.get(failure.key) is None or interrupted)
        for path in self._merged_failures:
            with contextlib.suppress(OSError):  # the next run does it
                path.unlink()

    def waiting(self) -> list[tuple[str, Row]]:
        """The names and rows that are not written yet."""
        return [(row.name, row) for row in self._waiting if row in self.index]

    def flush(self) -> None:
        """Write the rows since the last full shard, and rewrite shards with invalid rows.

        Raises:
            OutputError: they cannot be written; a later call can try again.
        """
        self._begin()
        self.settle()

    def settle(self, wait: bool = True) -> None:
        """Take note of the shard that is being written, when it is done.

        Raises:
            OutputError: it cannot be written; its rows wait again.
        """
        if self._writing is None or not (wait or self._writing[1].done()):
            return
        (batch, future), self._writing = self._writing, None
        try:
            self.shards = future.result()
        except BaseException:
            self._waiting = [*batch.waiting, *self._waiting]
            raise
        self._named, self.unmerged = dict(self.shards), []
        for file, rows in batch.shards.items():
            for number, row in enumerate(rows):
                row.shard, row.number, row.vector = file, number, None
                if row not in self.index:  # dropped meanwhile
                    self.index.dirty.add(file)
        self.index.dirty -= batch.replaced

    def vectors(self, rows: Sequence[Row]) -> Rows:
        """The vectors of ``rows``, at least one.

        Raises:
            InputError: token grids of different sizes, or a shard is damaged.
        """
        maps = {file: map_vectors(self.folder / file) for file in {row.shard for row in rows if row.shard}}

        def vector(row: Row) -> np.ndarray:
            return maps[row.shard][row.number] if row.vector is None else row.vector

        shapes = {vector(row).shape for row in rows}
        if len(shapes) > 1:
            raise InputError(
                f"{self.folder} holds token grids of different sizes, and one file holds those of one"
            )

        def blocks() -> Iterator[np.ndarray]:
            for start in range(0, len(rows), BLOCK):
                yield np.stack([vector(row) for row in rows[start : start + BLOCK]])

        return Rows((len(rows), *shapes.pop()), blocks)

    def _begin(self) -> None:
        """Begin to write what waits, when the shard before it is written."""
        self.settle()
        self._since = time.monotonic()
        waiting = [row for _, row in self.waiting()]
        dirty = self.index.dirty & self.shards.keys()
        unchanged = self.shards == (self._named or {}) and not self.unmerged
        if not waiting and not dirty and unchanged:
            return
        groups = [[row for row in self.index if row.shard == old] for old in in_order(dirty)]
        files: dict[str, list[Row]] = {}
        for group in (*groups, waiting):
            if group:
                number = 1 + max((shard_number(file) or 0 for file in (*self._files, *files)), default=-1)
                files[f"{self._prefix}embeddings-{number:05d}.{self._format}"] = group
        batch = _Batch(files, frozenset(dirty), waiting)
        self._waiting = []
        self._writing = batch, self._pool.submit(self._write, batch, self.shards, list(self.unmerged))

    def _write(self, batch: _Batch, shards: dict[str, Entry], unmerged: list[str]) -> dict[str, Entry]:
        """Write shards and the manifest; return what it names. This runs in a thread."""
        if self._named is None:  # shards without a manifest would be refused
            self._manifest({}).write(self._home)
        shards = {file: entry for file, entry in shards.items() if file not in batch.replaced}
        for file, rows in batch.shards.items():
            shards[file] = self._write_shard(file, rows)
        self._manifest(shards).write(self._home)
        with contextlib.suppress(OSError):  # the next run does it
            for name in unmerged:
                (self.folder / name / MANIFEST).unlink()
        for old in batch.replaced:
            with contextlib.suppress(OSError):
                (self.folder / old).unlink()
        self._files |= set(shards)
        return shards

    def _manifest(self, shards: dict[str, Entry]) -> Manifest:
        return Manifest(self.fingerprint, shards, {"texts": self._texts, "shard_format": self._format})

    def _write_shard(self, file: str, rows: Sequence[Row]) -> Entry:
        for row in rows:
            if isinstance(row.mark, Future):
                row.mark = row.mark.result()
        marks = [row.mark for row in rows if isinstance(row.mark, FileMark)]
        complete = marks if len(marks) == len(rows) else None
        names, positions = [row.name for row in rows], [row.position for row in rows]
        path = self.folder / file
        write_shard(path, names, complete, positions, self.vectors(rows), self.fingerprint)
        return Entry.of(path, len(rows))

    def _load_all(self, manifests: dict[str, Manifest], homes: Sequence[str]) -> None:
        """Load every shard, in the order in which they were written; those of ``homes`` are ours."""
        named: dict[str, Entry] = {}
        for manifest in reversed(manifests.values()):
            named |= manifest.shards
        on_disk = {
            file
            for home in homes
            for path in (self.folder / home).iterdir()
            if shard_number(file := f"{home}/{path.name}" if home else path.name) is not None
        }
        whole = manifests.get("")
        foreign = (whole.shards.keys() if whole is not None else set()) if self._prefix else set()
        self._files = {*named, *on_disk}
        for file in in_order(self._files):
            entry = self._load(file, named.get(file))
            if entry is None:
                self.lost += named[file].rows
            elif file not in foreign and (not self._prefix or file.startswith(self._prefix)):
                self.shards[file] = entry

    def _load(self, file: str, entry: Entry | None) -> Entry | None:
        """Load the rows of a shard; return its entry for the manifest, or None if the shard is gone.

        Of several rows of one file, the last is valid.

        Raises:
            InputError: the shard is damaged, or has other vectors than the folder.
        """
        path = self.folder / file
        if entry is not None and not path.exists():
            return None
        try:
            if entry is not None:
                entry.check_size(path)
            shard = read_shard(path)
            if entry is None:
                check_same(path, shard.fingerprint, self.fingerprint)
            elif entry.rows != len(shard.names):
                raise InputError(f"{path} has {len(shard.names)} rows instead of {entry.rows}")
        except InputError as error:
            state = "is in the manifest" if entry is not None else "is not in the manifest"
            raise InputError(
                f"{file} {state} and cannot be used: move it away, and its images are embedded again ({error})"
            ) from error
        for number, name in enumerate(shard.names):
            mark = shard.marks[number] if shard.marks is not None else None
            position = shard.positions[number] if shard.positions is not None else None
            self.index.load(name, mark, file, number, position)
        return entry if entry is not None else Entry.of(path, len(shard.names))


def _format_of(manifest: Manifest | None) -> str:
    """The format of the last shard of a folder; the default for a new folder."""
    files = list(manifest.shards) if manifest is not None else []
    return files[-1].rpartition(".")[2] if files else SHARD_FORMAT


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.writing(folder, error) from error
