"""Where the vectors of a run go: one file or a folder of shards, written as they come.

A file is made of a folder of shards beside it, `FILE.part`, which is removed when the file is there. A run that is
killed, or finds the disk full, leaves that folder: `read_vectors` reads it, and the same command goes on with it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import ExistsError, InputError, OutputError
from ..events import Notice, OnEvent, ignore
from ..messages import counted, size
from ..storage.atomic import followed, replace_folder
from .files import check_grid, check_note, check_target, write
from .fingerprint import Fingerprint
from .manifest import check_replaceable, part_folder, read_manifest
from .shard_folder import LockedShards, ShardFolder

PART_S = 30  # seconds of work that a file may lose when its run is killed
SIZE_ON_DISK = {".jsonl": 3.5}  # of a file, compared with its values in memory


@dataclass(frozen=True)
class WriterOptions:
    """How to write vectors.

    Attributes:
        force: replace what is there.
        prune: remove the vectors of images that are gone from a folder that is continued.
        texts: the names are texts, not files.
    """

    force: bool = False
    prune: bool = False
    texts: bool = False


class VectorWriter(Protocol):
    """Takes the vectors of a run."""

    def remaining(self, names: Sequence[str]) -> list[str]:
        """Those of all ``names`` of the run that have to be embedded."""

    def add(self, name: str, vector: np.ndarray) -> None:
        """Take the vector of the next one."""

    def close(self, interrupted: bool = False) -> None:
        """Bring everything to its place; of an interrupted run, without loss of an earlier result."""


def check_output(output: str, names: Sequence[str], options: WriterOptions) -> None:
    """Refuse what could not be written, before hours of work go into it.

    Args:
        output: a file, or a folder of shards whose name ends in `/`.
        names: of what will be written.
        options: how it will be written.

    Raises:
        InputError: a name that the format cannot hold, or a folder that holds something else than shards.
        ExistsError: the file exists, and is not to be replaced.
        OutputError: it cannot be written.
    """
    path = Path(output).expanduser()
    if not output.endswith("/"):
        if options.prune:
            raise InputError(f"--prune is for a folder of shards, and {path} is a file: end its name in /")
        check_target(path, names, options.force)
        path = part_folder(followed(path))
    elif options.prune and options.texts:
        raise InputError("--prune is for images, and texts are never gone")
    if os.path.lexists(path) and not path.is_dir():
        raise ExistsError(f"{path} is no folder: name another")
    if options.force:
        check_replaceable(path)
    elif path.is_dir():
        read_manifest(path)
    above = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"{path} cannot be written: {above} may not be written to")


def open_writer(
    output: str, fingerprint: Fingerprint, options: WriterOptions, on_event: OnEvent = ignore
) -> VectorWriter:
    """The writer of a file, or of a folder whose name ends in `/`.

    Raises:
        InputError: the folder holds vectors of something else, or is none of shards.
        OutputError: it cannot be written to, or another run does.
    """
    path = followed(Path(output).expanduser())
    kind = _FolderWriter if output.endswith("/") else _FileWriter
    return kind(path, fingerprint, options, on_event)


class _Writer:
    """What both kinds share: a folder of shards that this run alone writes to, and a way to speak."""

    def __init__(self, path: Path, locked: LockedShards, on_event: OnEvent) -> None:
        self._path, self._locked, self._on_event = path, locked, on_event
        self._shards = locked.folder

    def close(self, interrupted: bool = False) -> None:
        try:
            self._bring(interrupted)
        finally:
            self._locked.release()

    def _bring(self, interrupted: bool) -> None:
        """Bring the vectors to their place."""
        raise NotImplementedError

    def _flush(self) -> None:
        try:
            self._shards.flush()
        except OutputError as error:
            raise _rescued(self._shards, error) from error

    def _say(self, message: str) -> None:
        self._on_event(Notice(message))

    def _say_left_alone(self) -> None:
        self._say(
            f"{self._path} is left as it was; the {self._shards.count} vectors of this run are in"
            f" {self._shards.folder}: the same command goes on with them"
        )


class _FolderWriter(_Writer):
    """A folder of shards. One that is to be replaced stays until another beside it is complete."""

    def __init__(
        self, path: Path, fingerprint: Fingerprint, options: WriterOptions, on_event: OnEvent
    ) -> None:
        path = Path(os.path.realpath(path))
        self._prune, self._left = options.prune, 0
        self._replaces = options.force and path.is_dir() and any(path.iterdir())
        folder = part_folder(path) if self._replaces else path
        super().__init__(path, LockedShards(folder, fingerprint, options.force, options.texts), on_event)

    def remaining(self, names: Sequence[str]) -> list[str]:
        folder = self._shards
        if folder.unmarked:
            self._say(
                f"{folder.unmarked} vectors in {folder.folder} are of an older version, which kept no marks of its"
                " images: changed ones are known by their time, and gone ones not at all"
            )
        gone = folder.prune() if self._prune else len(folder.gone())
        if gone and self._prune:
            self._say(f"removed the vectors of {counted(gone, 'image')} that cannot be found any more")
        elif gone:
            self._say(
                f"{counted(gone, 'image')} of {folder.folder} cannot be found any more: --prune removes the vectors"
            )
        left = folder.remaining(names)
        if len(left) < len(names):
            self._say(f"{len(names) - len(left)} of them are in {folder.folder} already")
        if folder.changed:
            self._say(f"embedding {counted(folder.changed, 'image')} again, because the content has changed")
        self._left = len(left)
        return left

    def add(self, name: str, vector: np.ndarray) -> None:
        if self._left:
            check_room(self._path, self._left * vector.nbytes)
            self._left = 0
        self._shards.add(name, vector)

    def _bring(self, interrupted: bool) -> None:
        folder = self._shards
        try:
            folder.close(interrupted)
        except OutputError as error:
            raise _rescued(folder, error) from error
        if self._replaces and interrupted:
            self._say_left_alone()
            return
        if self._replaces:
            try:
                replace_folder(self._path, folder.folder)
            except OSError as error:
                raise OutputError(f"{self._path} cannot be replaced: {error.strerror or error}") from error
            shutil.rmtree(folder.folder, ignore_errors=True)
        self._say(f"wrote {counted(folder.count, 'vector')} in all to {self._path}")


class _FileWriter(_Writer):
    """One file with everything in it."""

    def __init__(
        self, path: Path, fingerprint: Fingerprint, options: WriterOptions, on_event: OnEvent
    ) -> None:
        check_note(path, fingerprint, options.force)
        locked = LockedShards(part_folder(path), fingerprint, options.force, options.texts, PART_S)
        super().__init__(path, locked, on_event)
        self._fingerprint = fingerprint
        self._names: list[str] = []
        self._shape: tuple[int, ...] | None = None

    def remaining(self, names: Sequence[str]) -> list[str]:
        found = self._shards.count
        self._names, left = list(names), self._shards.remaining(names)
        if found:
            self._say(
                f"an earlier run was cut short, and left {counted(found, 'vector')} in {self._shards.folder}:"
                f" {len(left)} of {len(names)} are still to be embedded"
            )
        return left

    def add(self, name: str, vector: np.ndarray) -> None:
        if self._shape is None:
            factor = 1 + SIZE_ON_DISK.get(self._path.suffix.lower(), 1)
            check_room(self._path, int(len(self._names) * vector.nbytes * factor))
            self._shape = vector.shape
        check_grid(name, vector, self._shape)
        self._shards.add(name, vector)

    def _bring(self, interrupted: bool) -> None:
        part = self._shards
        if interrupted and os.path.lexists(self._path):
            self._flush()
            self._say_left_alone()
            return
        if not interrupted:
            part.forget_stale()
        found = part.rows_of(self._names)
        if found:
            names, rows = zip(*found, strict=True)
            try:
                write(self._path, names, part.vectors(rows), self._fingerprint)
            except OutputError as error:
                self._flush()
                raise OutputError(
                    f"{error}; the {len(names)} vectors are in {part.folder}: the same command goes on with them"
                ) from error
        shutil.rmtree(part.folder, ignore_errors=True)
        amount = counted(len(found), "vector")
        self._say(f"wrote {amount} to {self._path}" if found else f"nothing to write to {self._path}")


def _rescued(folder: ShardFolder, error: OutputError) -> OutputError:
    """What to say when a shard cannot be written, and its vectors have been brought elsewhere."""
    waiting = folder.waiting()
    if not waiting:
        return error
    names, rows = zip(*waiting, strict=True)
    before = f", those before in {folder.folder}" if folder.shards else ""
    last = f"the last {len(names)} vectors" if before else f"all {len(names)} vectors"
    try:
        path = Path(tempfile.mkdtemp(prefix="mlx-aimv2-"), "vectors.npz")
        write(path, names, folder.vectors(rows), folder.fingerprint)
    except OSError:
        return OutputError(
            f"{error}; {last} are lost{before and ', those before are in ' + str(folder.folder)}"
        )
    return OutputError(f"{error}; {last} are in {path}{before}")


def check_room(path: Path, nbytes: int) -> None:
    """Refuse vectors that the disk has no room for.

    Raises:
        OutputError: there is too little.
    """
    above = next(folder for folder in path.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(above).free
    if nbytes > free:
        raise OutputError(
            f"{path} takes about {size(nbytes)} while it is written, and its disk has {size(free)} free: make room,"
            " or write to another disk"
        )
