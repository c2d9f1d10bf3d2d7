"""Files that appear whole or not at all.

They are written under a partial name beside their place, which the writer holds a lock on. What a killed run left
is removed by the next one that writes to the same place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import mlx.core as mx

from ..errors import OutputError

STEM = 50  # signs of a name that its partial name has too: there is room for no more than 255 bytes
OCCUPIED = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


@contextlib.contextmanager
def _partial(path: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """A new partial file or folder of ``path``, locked for as long as this process writes there, however it ends."""
    _sweep(path)
    partial, descriptor = _made(path, make)
    try:
        yield partial
    finally:
        os.close(descriptor)


def _made(path: Path, make: Callable[[Path], object]) -> tuple[Path, int]:
    """The partial file or folder, and the descriptor that holds its lock."""
    while True:
        partial = path.with_name(f".{path.name[:STEM]}.{secrets.token_hex(5)}.partial")
        make(partial)
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(partial, os.O_RDONLY)
            _lock(descriptor)
            if partial.exists():
                return partial, descriptor
            os.close(descriptor)  # before it was locked, another run took it for what a killed one had left


def _lock(descriptor: int, flags: int = 0) -> bool:
    """Whether the lock could be had; some network file systems have none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
    except OSError:
        return False
    return True


def _sweep(path: Path) -> None:
    """Remove what killed runs left of ``path``: what nobody holds a lock on."""
    for leftover in path.parent.glob(f".{glob.escape(path.name[:STEM])}.{'[0-9a-f]' * 10}.partial"):
        with contextlib.suppress(OSError):  # another run may have been quicker
            descriptor = os.open(leftover, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                if _lock(descriptor, fcntl.LOCK_NB):
                    _remove(leftover, os.fstat(descriptor).st_mode)
            finally:
                os.close(descriptor)


def _remove(leftover: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        shutil.rmtree(leftover)
    elif stat.S_ISREG(mode):  # of other kinds none is made here
        leftover.unlink()


def _exists_already(path: Path) -> OutputError:
    return OutputError(f"{path} exists already: name another folder, or remove it")


def _reason(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} cannot be written: {error.strerror or error}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write to the path this yields; it becomes ``path`` when all is well, and is removed when not.

    Raises:
        OutputError: the file cannot be written (no such folder, no permission, a full disk).
    """
    try:
        # a folder that is not there is found before any work is done
        with _partial(path, lambda partial: partial.touch()) as partial:
            try:
                yield partial
                _flush(partial)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
    except OutputError:
        raise
    except OSError as error:
        raise _reason(path, error) from error


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill the folder this yields; it becomes ``path`` when all is well, and is removed when not.

    Raises:
        OutputError: ``path`` exists already, or cannot be written.
    """
    if os.path.lexists(path):
        raise _exists_already(path)
    try:
        with _partial(path, lambda partial: partial.mkdir(parents=True)) as partial:
            try:
                yield partial
                for file in partial.rglob("*"):
                    _flush(file)
                _rename(partial, path)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OutputError:
        raise
    except OSError as error:
        raise _reason(path, error) from error


def _rename(partial: Path, path: Path) -> None:
    try:
        partial.rename(path)
    except OSError as error:
        if error.errno in OCCUPIED:  # another run was quicker
            raise _exists_already(path) from error
        raise


def save_tensors(path: Path, tensors: Mapping[str, mx.array], note: str) -> None:
    """Write a safetensors file whose metadata says `{"format": note}`.

    Raises:
        OutputError: it cannot be written, as on a full disk.
    """
    try:
        mx.save_safetensors(str(path), dict(tensors), metadata={"format": note})
    except RuntimeError as error:  # MLX's type for everything that goes wrong with a file
        raise OutputError(f"{path} cannot be written: {error}") from error


def _flush(path: Path) -> None:
    if path.is_file():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
