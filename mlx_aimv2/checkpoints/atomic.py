"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlx.core as mx

from ..errors import OutputError


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}.partial")


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
            partial.touch()  # a folder that is not there is found before any work is done
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
            partial.mkdir(parents=True)
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
