"""Atomic writes: files and folders that appear whole or not at all, even if the power fails.

They are written under a partial name beside their place, which the writer locks; data reaches the disk before the
name does. The next run that writes to the same place removes what a killed run left.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import glob
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import Advice, ExistsError, OutputError

STEM = 50  # characters of a name in its partial name, which has room for 255 bytes
OCCUPIED = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
# by a file system, or by the kernel
UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
AT_FDCWD, RENAME_EXCHANGE, RENAME_SWAP = -100, 2, 2  # of Linux' renameat2 and of macOS' renamex_np


@contextlib.contextmanager
def _partial(path: Path, make: Callable[[Path], object]) -> Iterator[Path]:
    """Make a partial file or folder of ``path``, and lock it until the writing ends, however that ends."""
    _sweep(path)
    partial, descriptor = _make_locked(path, make)
    try:
        yield partial
    finally:
        os.close(descriptor)


def _make_locked(path: Path, make: Callable[[Path], object]) -> tuple[Path, int]:
    """Make the partial file or folder; return it and the descriptor of its lock."""
    while True:
        partial = path.with_name(f".{path.name[:STEM]}.{secrets.token_hex(5)}.partial")
        make(partial)
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(partial, os.O_RDONLY)
            _lock(descriptor)
            if partial.exists():
                return partial, descriptor
            os.close(descriptor)  # before the lock, another run took it for a leftover


def _lock(descriptor: int, flags: int = 0) -> bool:
    """Lock a file, and return whether that worked; some network file systems have no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
    except OSError:
        return False
    return True


def _sweep(path: Path) -> None:
    """Remove the partial files that killed runs left of ``path``: those without a lock."""
    for leftover in path.parent.glob(f".{glob.escape(path.name[:STEM])}.{'[0-9a-f]' * 10}.partial"):
        with contextlib.suppress(OSError):  # another run may be faster
            descriptor = os.open(leftover, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            try:
                if _lock(descriptor, fcntl.LOCK_NB):
                    _remove(leftover, os.fstat(descriptor).st_mode)
            finally:
                os.close(descriptor)


def _remove(leftover: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        shutil.rmtree(leftover)
    elif stat.S_ISREG(mode):  # other kinds are not ours
        leftover.unlink()


def refuse_existing(*paths: Path, force: bool = False) -> None:
    """Raise ExistsError if a path exists, perhaps as a broken link, and ``force`` is not set."""
    for path in paths:
        if not force and os.path.lexists(path):
            advice = Advice("name another, or replace it with {}", "force", True, otherwise="name another")
            raise ExistsError(f"{path} exists already", advice)


def followed(path: Path) -> Path:
    """The target of a link, so that the link stays and its target is replaced; any other path as it is."""
    return Path(os.path.realpath(path)) if os.path.lexists(path) and path.is_symlink() else path


def _exists_already(path: Path) -> ExistsError:
    return ExistsError(f"{path} exists already: name another folder, or remove it")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write to the path this yields; it becomes ``path`` on success, and is removed on failure.

    Raises:
        OutputError: the file cannot be written (no such folder, no permission, a full disk).
    """
    target = followed(path)
    try:
        # a missing folder is noticed before any work is done
        with _partial(target, lambda partial: partial.touch()) as partial:
            try:
                yield partial
                sync(partial)
                partial.replace(target)
                sync(target.parent)
            finally:
                partial.unlink(missing_ok=True)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError.writing(path, error) from error


@contextlib.contextmanager
def new_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """Fill the folder this yields; it becomes ``path`` on success, and is removed on failure.

    Args:
        path: the folder to write.
        replace: replace an existing folder, which is removed afterwards.

    Raises:
        OutputError: ``path`` exists already, or cannot be written.
    """
    if os.path.lexists(path) and not replace:
        raise _exists_already(path)
    target = followed(path)
    try:
        with _partial(target, lambda partial: partial.mkdir(parents=True)) as partial:
            try:
                yield partial
                sync_tree(partial)
                replace_folder(target, partial) if replace else _rename(partial, target)
                sync(target.parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OutputError:
        raise
    except OSError as error:
        raise OutputError.writing(path, error) from error


def _rename(partial: Path, path: Path) -> None:
    try:
        partial.rename(path)
    except OSError as error:
        if error.errno in OCCUPIED:  # another run was faster
            raise _exists_already(path) from error
        raise


def replace_folder(path: Path, new: Path) -> None:
    """Replace a folder by another, in one step where the system can; the old folder becomes ``new``, or is removed.

    Raises:
        OSError: the system refuses, and nothing has changed.
    """
    if not os.path.lexists(path):
        _rename(new, path)
    elif not _exchange(new, path):
        aside = path.with_name(f".{path.name[:STEM]}.{secrets.token_hex(5)}.old")
        path.rename(aside)
        try:
            new.rename(path)
        except BaseException:
            aside.rename(path)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(new: Path, old: Path) -> bool:
    """Exchange the names of two folders in one step; return False if the system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(new), os.fsencode(old)
    try:
        if sys.platform == "darwin":
            failed = library.renamex_np(first, second, RENAME_SWAP)
        else:
            failed = library.renameat2(AT_FDCWD, first, AT_FDCWD, second, RENAME_EXCHANGE)
    except AttributeError:
        return False
    number = ctypes.get_errno()
    if failed and number not in UNSUPPORTED:
        raise OSError(number, os.strerror(number))
    return not failed


def sync_tree(folder: Path) -> None:
    """Write everything below a folder to the disk: files, then the folders that name them; raise OSError."""
    for root, _, files in os.walk(folder, topdown=False):
        for path in (*(Path(root) / name for name in files), Path(root)):
            if not path.is_symlink():
                sync(path)


def sync(path: Path) -> None:
    """Write a file, or the names in a folder, to the disk; raise OSError if the system refuses."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS leaves data in the drive's cache otherwise
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
                return
        os.fsync(descriptor)
    except OSError as error:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode) or error.errno not in UNSUPPORTED:
            raise  # some file systems cannot sync folders
    finally:
        os.close(descriptor)
