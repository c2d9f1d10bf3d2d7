"""Reading vectors: files of every format, folders of shards, and the JSON lines that `embed` prints."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..storage.atomic import followed
from ..storage.json_files import read_json
from ..storage.stand_ins import check_stand_in
from ..storage.swap import swapped
from .files import NOTE, PATHS, WRITERS, swap_of
from .manifest import part_folder
from .shards import UNREADABLE, map_npy, map_vectors, read_shard
from .stored import StoredVectors


@dataclass(frozen=True)
class Vectors:
    """Vectors with their names and their fingerprint.

    Attributes:
        paths: of the images, or the texts; item k belongs to row k.
        embeddings: (N, D) float32, or token grids (N, h, w, D). Vectors of `.npy`, `.npz` and `.safetensors` are
            mapped into memory: only what is used is read, and the array may be read-only.
        fingerprint: as `Embedder.fingerprint`; empty for JSON lines from a pipe.
    """

    paths: tuple[str, ...]
    embeddings: np.ndarray
    fingerprint: Mapping[str, Any]


def read_vectors(path: str | os.PathLike[str]) -> Vectors:
    """Read the vectors of a file or a folder.

    Args:
        path: a file of any format, or a folder of shards, that `embed -o` wrote; or JSON lines that `embed` printed.

    Raises:
        InputError: the file is missing or damaged, or has no vectors.
        MissingExtraError: the format needs a package that is not installed.
    """
    place = followed(Path(path).expanduser())
    try:
        if place.is_dir():
            stored = StoredVectors(place)
            return Vectors(tuple(stored.names), stored.array(), stored.fingerprint)
        suffix = place.suffix.lower()
        source = swapped(place, swap_of(place))
        if not source.is_file():
            part = part_folder(place)
            hint = f"; what a run left that was cut short is in {part}" if part.is_dir() else ""
            raise InputError(f"{place}: there is no such file{hint}")
        check_stand_in(source, InputError)
        read = READERS.get(suffix) or _by_content(source)
        vectors = read(place, source)
    except InputError:
        raise
    except (*UNREADABLE, RecursionError) as error:
        raise InputError(f"{place} cannot be read as vectors: {' '.join(str(error).split())}") from error
    _check_array(place, vectors.embeddings)
    if len(vectors.paths) != len(vectors.embeddings):
        raise InputError(
            f"{place} is damaged: {len(vectors.embeddings)} vectors, and names for {len(vectors.paths)}"
        )
    return vectors


def _check_array(place: Path, array: np.ndarray) -> None:
    if array.ndim < 2 or array.dtype != np.float32:
        raise InputError(f"{place} holds {array.dtype} of shape {array.shape}, not float32 vectors in rows")


def _by_content(source: Path) -> Callable[[Path, Path], Vectors]:
    """The reader of JSON lines, whatever the name of their file."""
    with source.open("rb") as file:
        start = file.read(4).removeprefix(b"\xef\xbb\xbf")
    if not start.startswith(b"{"):
        problem = f"no format ends in {source.suffix}" if source.suffix else "the name has no extension"
        raise InputError(f"{source}: {problem}; there are {', '.join(WRITERS)}")
    return _read_jsonl


def _read_shard(place: Path, source: Path) -> Vectors:
    shard = read_shard(source)
    return Vectors(tuple(shard.names), map_vectors(source), shard.fingerprint)


def _read_npy(place: Path, source: Path) -> Vectors:
    lines = _beside(place, PATHS).read_bytes().split(b"\n")
    if lines.pop():
        raise InputError(f"{place}: {place.with_suffix(PATHS).name} is cut off: its last line has no end")
    paths = tuple(os.fsdecode(line) for line in lines)
    return Vectors(paths, map_npy(source), read_json(_beside(place, NOTE), InputError))


def _beside(place: Path, suffix: str) -> Path:
    """The file with another suffix beside a file of vectors."""
    path = place.with_suffix(suffix)
    source = swapped(path, swap_of(place))
    if not source.is_file():
        raise InputError(f"{place} lacks {path.name}, which is written beside it")
    return source


def _read_jsonl(place: Path, source: Path) -> Vectors:
    names: list[str] = []
    rows: list[np.ndarray] = []
    with source.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                name, row = _read_line(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
                if rows and row.shape != rows[0].shape:
                    raise ValueError(f"it has the shape {row.shape}, and those before {rows[0].shape}")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                reason = f"it lacks {error}" if isinstance(error, KeyError) else error
                raise InputError(
                    f"{place}, line {number} is no vector that `embed` prints: {reason}"
                ) from error
            names.append(name)
            rows.append(row)
    if not rows:
        raise InputError(f"{place} holds no vectors")
    note = swapped(place.with_suffix(NOTE), swap_of(place))
    return Vectors(tuple(names), np.stack(rows), read_json(note, InputError) if note.is_file() else {})


def _read_line(line: bytes) -> tuple[str, np.ndarray]:
    entry = json.loads(line)
    name, values = entry["path" if "path" in entry else "text"], np.array(entry["embedding"])
    if not isinstance(name, str) or values.dtype.kind not in "fi" or not values.size:
        raise ValueError("it needs a text and a list of numbers")
    with np.errstate(over="ignore"):
        row = values.astype(np.float32)
    if not np.isfinite(row).all():
        raise ValueError("its numbers are not finite")
    return name, row


READERS: dict[str, Callable[[Path, Path], Vectors]] = {
    ".npz": _read_shard,
    ".npy": _read_npy,
    ".safetensors": _read_shard,
    ".jsonl": _read_jsonl,
    ".parquet": _read_shard,
}
