"""Folder locks: one run at a time writes to a folder. A lock ends with its process, however that ends."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from ..errors import Aimv2Error, InputError, OutputError

LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # of some network file systems


def lock_folder(folder: Path, refusal: Aimv2Error, patience_s: float = 0.05) -> BaseFileLock:
    """Lock a folder; `release` ends the lock. On a file system without locks, lock nothing.

    Args:
        folder: the folder, which exists.
        refusal: the error to raise if another run holds the lock.
        patience_s: how long to wait for it.

    Raises:
        Aimv2Error: ``refusal``.
        OutputError: the folder cannot be written.
    """
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        folder.stat()  # filelock would make a missing folder
        # filelock refuses a file that another run removes meanwhile: the second attempt gets a new file
        lock.acquire(timeout=patience_s, poll_interval=0.03)
    except Timeout as error:
        raise refusal from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise OutputError.writing(folder, error) from error
    return lock


@contextlib.contextmanager
def locked(folder: Path, option: str = "--adapter-path") -> Iterator[None]:
    """Lock the folder of a training run, and remove the lock file afterwards.

    Args:
        folder: the folder, which exists.
        option: the option that names another folder.

    Raises:
        InputError: another run holds the lock.
        OutputError: the folder cannot be written.
    """
    refusal = f"another run is training in {folder}: wait until it ends, or name another {option}"
    lock = lock_folder(folder, InputError(refusal))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()
