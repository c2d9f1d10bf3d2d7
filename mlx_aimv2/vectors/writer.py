"""`VectorWriter`: vectors to one file or to a folder of shards, row by row; a later run continues a killed one.

A run that writes a file collects its vectors in a folder of shards beside it, `FILE.part`, and removes that folder
when the file is complete. After a killed run, or a full disk, the folder is still there: `read_vectors` reads it, and
the same command continues it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import ExistsError, InputError, OutputError
from ..events import Notice, OnEvent, warn
from ..messages import counted, size
from ..storage.atomic import followed, replace_folder
from .files import check_grid, check_note, check_target, write
from .fingerprint import Fingerprint
from .options import WriterOptions
from .shard_folder import ShardFolder
from .shards import check_replaceable, part_folder, read_manifest

PART_S = 30  # seconds of work that a killed run may lose of a file
SIZE_ON_DISK = {".jsonl": 3.5}  # of a file, relative to its values in memory


def check_output(output: str, names: Sequence[str], options: WriterOptions) -> None:
    """Refuse an output that cannot be written, before hours of work go into it.

    Args:
        output: a file, or a folder of shards whose name ends in `/`.
        names: of the images or texts.
        options: how to write.

    Raises:
        InputError: the format cannot hold a name, or the folder holds other files than shards.
        ExistsError: the file exists, and ``force`` is not set.
        OutputError: the output cannot be written.
    """
    path = Path(output).expanduser()
    if not output.endswith("/"):
        if options.prune:
            raise InputError(f"--prune is for a folder of shards, and {path} is a file: end its name in /")
        check_target(path, names, options.force)
        path = part_folder(followed(path))
    elif options.prune and options.text:
        raise InputError("--prune is for images, and texts are never gone")
    if os.path.lexists(path) and not path.is_dir():
        raise ExistsError(f"{path} is not a folder: name another")
    if options.force:
        check_replaceable(path)
    elif path.is_dir():
        read_manifest(path)
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path} cannot be written: {parent} is read-only for you")


def open_writer(
    output: str, fingerprint: Fingerprint, options: WriterOptions, on_event: OnEvent = warn
) -> VectorWriter:
    """The writer of a file, or of a folder whose name ends in `/`.

    Raises:
        InputError: the folder holds vectors with another fingerprint, or other files than shards.
        OutputError: it cannot be written, or another run writes to it.
    """
    path = followed(Path(output).expanduser())
    writer = _FolderWriter if output.endswith("/") else _FileWriter
    return writer(path, fingerprint, options, on_event)


class VectorWriter:
    """Writes the vectors of a run: `remaining` once, `add` for each vector, then `close`."""

    def __init__(self, path: Path, shards: ShardFolder, on_event: OnEvent) -> None:
        """Take the path of the result, and the locked folder that the vectors go to first."""
        self._path, self._shards, self._on_event = path, shards, on_event

    def remaining(self, names: Sequence[str], files: Sequence[str | None] | None = None) -> list[int]:
        """The indexes of the items that have no vector yet.

        Args:
            names: of the images or texts.
            files: the path of the file that holds item k, or None for an item without a file, such as an address.
                If this is not ``names[k]``, the item is a part of the file, such as `shard.tar/a.jpg` of `shard.tar`,
                and is embedded again when the file changes. Without ``files``, every name is the path of a file.
        """
        raise NotImplementedError

    def add(self, name: str, vector: np.ndarray) -> None:
        """Add the vector of the next remaining name.

        Raises:
            InputError: a token grid of another size than the previous one.
            OutputError: the disk has no room.
        """
        raise NotImplementedError

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
        self, path: Path, fingerprint: Fingerprint, options: WriterOptions, on_event: OnEvent
    ) -> None:
        path = Path(os.path.realpath(path))
        self._prune, self._unsized = options.prune, 0  # vectors whose size has not been checked
        self._replaces = options.force and path.is_dir() and any(path.iterdir())
        folder = part_folder(path) if self._replaces else path
        shards = ShardFolder.locked(folder, fingerprint, force=options.force, texts=options.text)
        super().__init__(path, shards, on_event)

    def remaining(self, names: Sequence[str], files: Sequence[str | None] | None = None) -> list[int]:
        folder, index = self._shards.folder, self._shards.index
        if unmarked := sum(row.mark is None for row in index):
            self._say(
                f"{unmarked} vectors in {folder} are of an older version, which kept no marks of its"
                " images: changed ones are known by their time, and gone ones not at all"
            )
        if gone := index.gone():
            images = counted(len(gone), "image")
            if self._prune:
                for row in gone:
                    index.drop(row)
                self._say(f"removed the vectors of {images} that cannot be found any more")
            else:
                self._say(f"{images} of {folder} cannot be found any more: --prune removes the vectors")
        remaining = index.remaining(names, files)
        if len(remaining) < len(names):
            self._say(f"{len(names) - len(remaining)} of them are in {folder} already")
        if index.changed:
            self._say(f"embedding {counted(index.changed, 'image')} again, because the content has changed")
        self._unsized = len(remaining)
        return remaining

    def add(self, name: str, vector: np.ndarray) -> None:
        if self._unsized:
            check_room(self._path, self._unsized * vector.nbytes)
            self._unsized = 0
        self._shards.add(name, vector)

    def _complete(self, interrupted: bool) -> None:
        shards = self._shards
        self._close_shards(interrupted)
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

    def remaining(self, names: Sequence[str], files: Sequence[str | None] | None = None) -> list[int]:
        count = len(self._shards.index)
        self._names, remaining = list(names), self._shards.index.remaining(names, files)
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
