"""One run in a folder at a time: a lock that ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError, OutputError

LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: Path, option: str = "--adapter-path") -> Iterator[None]:
    """Hold the lock of a folder. Where the file system has no locks, nothing is locked.

    Args:
        folder: what is locked.
        option: that names another folder.

    Raises:
        InputError: another run holds it.
        OutputError: the folder cannot be written.
    """
    path = folder / LOCK
    try:
        descriptor = _acquired(path)
    except BlockingIOError as error:
        raise InputError(
            f"another run is training in {folder}: wait until it ends, or name another {option}"
        ) from error
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _acquired(path: Path) -> int:
    """The descriptor that holds the lock.

    Raises:
        BlockingIOError: another one does.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if _lock(descriptor) and not _is_there(path, descriptor):
            os.close(descriptor)  # the run that had it has just ended and removed it
            continue
        return descriptor


def _lock(descriptor: int) -> bool:
    """Whether the lock could be had; some network file systems have none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        return False
    return True


def _is_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
