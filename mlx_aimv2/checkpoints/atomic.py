"""Files that appear whole or not at all.

They are written under a partial name beside their place, which the writer holds a lock on. What a killed run left
is removed by the next one that writes to the same place.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlx.core as mx

from ..errors import OutputError


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}.partial")


@contextlib.contextmanager
def _held(partial: Path) -> Iterator[None]:
    """Keep a lock on a partial file or folder, which goes with this process however it ends."""
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether the lock could be had; some network file systems have none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sweep(path: Path) -> None:
    """Remove what killed runs left of ``path``."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with contextlib.suppress(OSError):  # another run may have been quicker
            if _is_abandoned(leftover):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _is_abandoned(leftover: Path) -> bool:
    """Whether nobody writes there: no process of its number here, and no lock held anywhere."""
    found = re.search(r"\.(\d+)-[0-9a-f]{6}\.partial$", leftover.name)
    if found is None or leftover.is_symlink() or _is_running(int(found[1])):
        return False
    descriptor = os.open(leftover, os.O_RDONLY)
    try:
        return _lock(descriptor)
    finally:
        os.close(descriptor)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _reason(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} cannot be written: {error.strerror or error}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write to the path this yields; it becomes ``path`` when all is well, and is removed when not.

    Raises:
        OutputError: the file cannot be written (no such folder, no permission, a full disk).
    """
    partial = _partial(path)
    try:
        try:
            _sweep(path)
            partial.touch()  # a folder that is not there is found before any work is done
            with _held(partial):
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
    if path.exists():
        raise OutputError(f"{path} exists already: name another folder, or remove it")
    partial = _partial(path)
    try:
        try:
            _sweep(path)
            partial.mkdir(parents=True)
            with _held(partial):
                yield partial
                for file in partial.rglob("*"):
                    _flush(file)
                partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OutputError:
        raise
    except OSError as error:
        raise _reason(path, error) from error


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
