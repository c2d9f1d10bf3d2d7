"""`VectorWriter`: vectors to one file or to a folder of shards, row by row; a later run continues a killed one.

A run that writes a file collects its vectors in a folder of shards beside it, `FILE.part`, and removes that folder
when the file is complete. After a killed run, or a full disk, the folder is still there: `read_vectors` reads it, and
the same command continues it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import Advice, Aimv2Error, ChangedFileError, ExistsError, InputError, OutputError
from ..events import Notice, OnEvent, Skipped, warn
from ..messages import counted, size
from ..options.fields import check_fields, flag
from ..storage.atomic import followed, replace_folder
from .failures import Failure, state_of
from .files import check_file, check_grid, check_note, check_target, write
from .fingerprint import Fingerprint
from .manifest import FAILURES, check_replaceable, part_folder, read_manifests
from .options import WriterOptions
from .shard_folder import MOMENT_S, PATIENCE_S, FolderBusyError, ShardFolder

PART_S = 30  # seconds of work that a killed run may lose of a file
SIZE_ON_DISK = {".jsonl": 3.5}  # of a file, relative to its values in memory


@dataclass(frozen=True)
class Rank:
    """One of several processes that write to a folder together.

    Attributes:
        number: from 0.
        size: how many there are.
    """

    number: int = 0
    size: int = 1

    @property
    def folder(self) -> str:
        """The name of its folder in the whole folder; empty for a single process."""
        return f"rank-{self.number}-of-{self.size}" if self.size > 1 else ""

    def part_of(self, count: int) -> range:
        """The indexes that this process works on, out of ``count``: neighbours, so that few files are read twice."""
        return range(count * self.number // self.size, count * (self.number + 1) // self.size)


ALONE = Rank()


def check_output(output: str, names: Sequence[str], options: WriterOptions, rank: Rank = ALONE) -> None:
    """Refuse an output that cannot be written, before hours of work go into it.

    Args:
        output: a file, or a folder of shards whose name ends in `/`.
        names: of the images or texts.
        options: how to write.
        rank: which of several processes this is.

    Raises:
        InputError: the format cannot hold a name, or the folder holds other files than shards.
        ExistsError: the file exists, and ``force`` is not set.
        OutputError: the output cannot be written.
    """
    check_fields(options)
    path = Path(output).expanduser()
    if not output.endswith("/"):
        for option in ("prune", "retry_failed", "shard_format"):
            if getattr(options, option):
                raise InputError(
                    f"{flag(option)} is for a folder of shards, and {path} is a file: end its name in /"
                )
        if rank.size > 1:
            raise InputError(f"{rank.size} processes cannot write one file, {path}: end its name in /")
        check_target(path, names, options.force)
        path = part_folder(followed(path))
    elif options.prune and options.text:
        raise InputError("--prune is for images, and texts are never gone")
    elif options.shard_format == "parquet":
        check_file(Path("shard.parquet"), [".parquet"], names, force=True)
    if rank.size > 1 and options.force:
        raise InputError(f"--force is for a single process: name a new folder, or remove {path}")
    if os.path.lexists(path) and not path.is_dir():
        raise ExistsError(f"{path} is not a folder: name another")
    if options.force:
        check_replaceable(path)
    elif path.is_dir():
        read_manifests(path)
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path} cannot be written: {parent} is read-only for you")


def open_writer(
    output: str,
    fingerprint: Fingerprint,
    options: WriterOptions,
    on_event: OnEvent = warn,
    rank: Rank = ALONE,
) -> VectorWriter:
    """The writer of a file, or of a folder whose name ends in `/`.

    Args:
        output: the file or folder.
        fingerprint: of the vectors.
        options: how to write.
        on_event: called with notices.
        rank: which of several processes this is; each gets another part of the items from `VectorWriter.remaining`.

    Raises:
        InputError: the folder holds vectors with another fingerprint, or other files than shards.
        OutputError: it cannot be written, or another run writes to it.
    """
    path = followed(Path(output).expanduser())
    if not output.endswith("/"):
        return _FileWriter(path, fingerprint, options, on_event)
    return _FolderWriter(path, fingerprint, options, on_event, rank)


class VectorWriter:
    """Writes the vectors of a run: `remaining` once, `add` or `fail` for each item, then `close`."""

    def __init__(self, path: Path, shards: ShardFolder, on_event: OnEvent) -> None:
        """Take the path of the result, and the locked folder that the vectors go to first."""
        self._path, self._shards, self._on_event = path, shards, on_event

    def remaining(
        self, names: Sequence[str], files: Sequence[str | None] | None = None, versions: Sequence[str] = ()
    ) -> list[int]:
        """The indexes of the items that have no vector yet, of those that this process works on.

        Args:
            names: of the images or texts.
            files: the path of the file that holds item k, or None for an item without a file, such as an address.
                If this is not ``names[k]``, the item is a part of the file, such as `shard.tar/a.jpg` of `shard.tar`,
                and is embedded again when the file changes. Without ``files``, every name is the path of a file.
            versions: what else item k depends on, if it is a part; when that changes, it is embedded again.
        """
        raise NotImplementedError

    def add(self, name: str, vector: np.ndarray) -> None:
        """Add the vector of the next remaining name.

        Raises:
            InputError: a token grid of another size than the previous one.
            OutputError: the disk has no room.
        """
        raise NotImplementedError

    def fail(self, name: str, error: Aimv2Error) -> None:
        """Note that the next remaining name has no vector; raise OutputError if that cannot be written."""

    def close(self, interrupted: bool = False) -> None:
        """Complete the result; an interrupted run leaves an earlier result as it is.

        Raises:
            OutputError: the result cannot be written; the message says where the vectors are.
        """
        try:
            self._complete(interrupted)
        finally:
            self._shards.release()

    def _complete(self, interrupted: bool) -> None:
        raise NotImplementedError

    def _close_shards(self, interrupted: bool) -> None:
        try:
            self._shards.close(interrupted)
        except OutputError as error:
            raise _rescued(self._shards, error) from error

    def _say(self, message: str) -> None:
        self._on_event(Notice(message))

    def _say_unchanged(self) -> None:
        self._say(
            f"{self._path} is left as it was; the {len(self._shards.index)} vectors of this run are in"
            f" {self._shards.folder}: the same command goes on with them"
        )


class _FolderWriter(VectorWriter):
    """Writes a folder of shards. An existing folder is replaced only when the new folder beside it is complete."""

    def __init__(
        self, path: Path, fingerprint: Fingerprint, options: WriterOptions, on_event: OnEvent, rank: Rank
    ) -> None:
        path = Path(os.path.realpath(path))
        self._options, self._rank, self._unsized = options, rank, 0  # vectors whose size has not been checked
        self._replaces = options.force and path.is_dir() and any(path.iterdir())
        folder = part_folder(path) if self._replaces else path
        self._open = partial(
            ShardFolder.locked, folder, fingerprint, texts=options.text, shard_format=options.shard_format
        )
        patience_s = PATIENCE_S if rank.size > 1 else MOMENT_S
        shards = self._open(force=options.force, rank=rank.folder, patience_s=patience_s)
        super().__init__(path, shards, on_event)

    def remaining(
        self, names: Sequence[str], files: Sequence[str | None] | None = None, versions: Sequence[str] = ()
    ) -> list[int]:
        folder, index, failures = self._shards.folder, self._shards.index, self._shards.failures
        if self._shards.lost:
            self._say(
                f"shards of {folder} with {counted(self._shards.lost, 'vector')} are gone: embedding again"
            )
        if unmarked := sum(row.mark is None for row in index):
            self._say(
                f"{unmarked} vectors in {folder} are of an older version, which kept no marks of its"
                " images: changed ones are known by their time, and gone ones not at all"
            )
        self._report_gone()
        mine = self._rank.part_of(len(names))
        remaining = index.remaining(names, files, versions, mine)
        if len(remaining) < len(mine):
            self._say(f"{len(mine) - len(remaining)} of them are in {folder} already")
        if index.changed:
            self._say(f"embedding {counted(index.changed, 'image')} again, because the content has changed")
        keys = {index.key(names[k]): k for k in remaining}
        known = set() if self._options.retry_failed else {key for key in keys if failures.is_known(key)}
        failures.keep(
            lambda each: (
                each.key in known or not (each.key in keys or each.is_gone or index.get(each.key) is not None)
            )
        )
        if known:
            reason = f"failed before and did not change (see {folder / FAILURES})"
            advice = Advice("{} tries again", "retry_failed", True)
            self._on_event(Skipped(counted(len(known), "image"), reason, len(known), advice))
        remaining = [k for key, k in keys.items() if key not in known]
        self._unsized = len(remaining)
        return remaining

    def _report_gone(self) -> None:
        """Remove the rows of images that are gone, or say how many there are."""
        index, folder = self._shards.index, self._shards.folder
        if not (gone := index.gone()):
            return
        images = counted(len(gone), "image")
        if not self._options.prune:
            self._say(f"{images} of {folder} cannot be found any more: --prune removes the vectors")
            return
        for row in gone:
            index.drop(row)
        self._say(f"removed the vectors of {images} that cannot be found any more")

    def fail(self, name: str, error: Aimv2Error) -> None:
        key = self._shards.index.key(name)
        # the next run lists a changed file anew: it may have changed before this run looked at it
        is_final = self._shards.index.is_unchanged(key) and not isinstance(error, ChangedFileError)
        state = state_of(key) if is_final else None
        reason = " ".join(str(error).split()).removeprefix(f"{name}: ")
        self._shards.failures.add(Failure(name, type(error).__name__, reason, key, state))

    def add(self, name: str, vector: np.ndarray) -> None:
        if self._unsized:
            check_room(self._path, self._unsized * vector.nbytes)
            self._unsized = 0
        self._shards.add(name, vector)

    def _complete(self, interrupted: bool) -> None:
        shards = self._shards
        self._close_shards(interrupted)
        if self._rank.size > 1:
            self._merge()
            return
        if self._replaces and interrupted:
            self._say_unchanged()
            return
        if self._replaces:
            try:
                replace_folder(self._path, shards.folder)
            except OSError as error:
                raise OutputError(f"{self._path} cannot be replaced: {error.strerror or error}") from error
            shutil.rmtree(shards.folder, ignore_errors=True)
        self._say(f"wrote {counted(len(shards.index), 'vector')} in all to {self._path}")

    def _merge(self) -> None:
        """Name the shards of all ranks in one manifest, unless others still write theirs.

        Each process lets go of its own folder before it asks for all others, so the last one gets them.
        """
        number, count = self._rank.number, counted(len(self._shards.shards), "shard")
        self._shards.release()
        try:
            shards = self._shards = self._open(patience_s=PATIENCE_S)
        except FolderBusyError:
            self._say(f"rank {number} has written {count} of {self._path}; other ranks go on")
            return
        shards.index.drop_outdated(failure.key for failure in shards.failures)
        if self._options.prune:
            for row in shards.index.gone():
                shards.index.drop(row)
        is_first = bool(
            shards.unmerged
        )  # another rank may have ended at the same time, and merged and said all
        shards.close()
        if is_first:
            self._say(f"wrote {counted(len(shards.index), 'vector')} in all to {self._path}")


class _FileWriter(VectorWriter):
    """Writes a single file with all vectors in the order of the names."""

    def __init__(
        self, path: Path, fingerprint: Fingerprint, options: WriterOptions, on_event: OnEvent
    ) -> None:
        check_note(path, fingerprint, options.force)
        shards = ShardFolder.locked(part_folder(path), fingerprint, force=options.force, texts=options.text)
        shards.full_s = PART_S
        super().__init__(path, shards, on_event)
        self._names: list[str] = []
        self._shape: tuple[int, ...] | None = None

    def remaining(
        self, names: Sequence[str], files: Sequence[str | None] | None = None, versions: Sequence[str] = ()
    ) -> list[int]:
        count = len(self._shards.index)
        self._names, remaining = list(names), self._shards.index.remaining(names, files, versions)
        if count:
            self._say(
                f"an earlier run was cut short, and left {counted(count, 'vector')} in {self._shards.folder}:"
                f" {len(remaining)} of {len(names)} are still to be embedded"
            )
        return remaining

    def add(self, name: str, vector: np.ndarray) -> None:
        if self._shape is None:
            factor = 1 + SIZE_ON_DISK.get(self._path.suffix.lower(), 1)
            check_room(self._path, int(len(self._names) * vector.nbytes * factor))
            self._shape = vector.shape
        check_grid(name, vector, self._shape)
        self._shards.add(name, vector)

    def _complete(self, interrupted: bool) -> None:
        shards = self._shards
        with contextlib.suppress(OutputError):  # the vectors of that shard are in memory again
            shards.settle()
        if interrupted and os.path.lexists(self._path):
            self._close_shards(interrupted)
            self._say_unchanged()
            return
        if not interrupted:
            shards.index.drop_stale()
        pairs = shards.index.rows_of(self._names)
        if pairs:
            names, rows = zip(*pairs, strict=True)
            try:
                write(self._path, names, shards.vectors(rows), shards.fingerprint)
            except OutputError as error:
                self._close_shards(interrupted)
                raise OutputError(
                    f"{error}; the {len(names)} vectors are in {shards.folder}: the same command goes on with them"
                ) from error
        shutil.rmtree(shards.folder, ignore_errors=True)
        amount = counted(len(pairs), "vector")
        self._say(f"wrote {amount} to {self._path}" if pairs else f"nothing to write to {self._path}")


def _rescued(shards: ShardFolder, error: OutputError) -> OutputError:
    """Write the vectors of a shard that cannot be written to another disk; the error that says where they are."""
    waiting = shards.waiting()
    if not waiting:
        return error
    names, rows = zip(*waiting, strict=True)
    before = f", those before in {shards.folder}" if shards.shards else ""
    last = f"the last {len(names)} vectors" if before else f"all {len(names)} vectors"
    try:
        path = Path(tempfile.mkdtemp(prefix="mlx-aimv2-"), "vectors.npz")
        write(path, names, shards.vectors(rows), shards.fingerprint)
    except OSError:
        lost = before.replace(", those before", ", those before are")
        return OutputError(f"{error}; {last} are lost{lost}")
    return OutputError(f"{error}; {last} are in {path}{before}")


def check_room(path: Path, nbytes: int) -> None:
    """Raise OutputError if the disk has no room for so many bytes."""
    parent = next(folder for folder in path.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(parent).free
    if nbytes > free:
        raise OutputError(
            f"{path} takes about {size(nbytes)} while it is written, and its disk has {size(free)} free: make room,"
            " or write to another disk"
        )
