"""Reading vectors: files of every format, folders of shards, and the JSON lines that `embed` prints."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.files import read_header
from ..errors import DamagedFileError, InputError
from ..storage.atomic import followed
from ..storage.json_files import read_json
from ..storage.stand_ins import check_stand_in
from ..storage.swap import swapped
from .files import NOTE, PATHS, WRITERS, import_pyarrow, swap_of
from .fingerprint import check_same
from .shards import UNREADABLE, map_npy, map_vectors, part_folder, read_manifest, read_shard


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
            return _read_folder(place)
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
    except (*UNREADABLE, RecursionError, DamagedFileError) as error:
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


def _read_npz(place: Path, source: Path) -> Vectors:
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


def _read_safetensors(place: Path, source: Path) -> Vectors:
    header = read_header((source,))
    info = header.tensors.get("embeddings")
    if info is None or not {"paths", "fingerprint"} <= header.metadata.keys():
        raise InputError(f"{place} holds no vectors that `embed` wrote")
    if info.dtype != "F32":
        raise InputError(f"{place} holds {info.dtype}, not float32 vectors in rows")
    names, fingerprint = (json.loads(header.metadata[key]) for key in ("paths", "fingerprint"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{place} is damaged: its names are no list of texts")
    empty = np.empty(info.shape, dtype=np.float32)
    rows = np.memmap(source, "<f4", "r", info.start, info.shape) if info.nbytes else empty
    return Vectors(tuple(names), rows, dict(fingerprint))


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


def _read_parquet(place: Path, source: Path) -> Vectors:
    pa, pq = import_pyarrow("Reading")
    try:
        table = pq.read_table(source, columns=["path", "embedding"])
        fingerprint = json.loads((table.schema.metadata or {})[b"fingerprint"])
        column = table["embedding"].combine_chunks()
        width = table.schema.field("embedding").type.list_size
        values = (
            column.flatten()
            if isinstance(column, pa.FixedSizeListArray)
            else pa.concat_arrays([chunk.flatten() for chunk in column.chunks])
        )
        rows = values.to_numpy(zero_copy_only=False).reshape(-1, width)
        return Vectors(tuple(table["path"].to_pylist()), rows, dict(fingerprint))
    except pa.ArrowException as error:
        raise InputError(f"{place} cannot be read as vectors: {' '.join(str(error).split())}") from error


def _read_folder(folder: Path) -> Vectors:
    manifest = read_manifest(folder)
    if manifest is None or not manifest.shards:
        raise InputError(f"{folder} holds no vectors")
    names: list[str] = []
    blocks: list[np.ndarray] = []
    for file, count in manifest.shards.items():
        shard, vectors = read_shard(folder / file), map_vectors(folder / file)
        check_same(folder / file, shard.fingerprint, manifest.fingerprint)
        if not len(shard.names) == len(vectors) == count:
            raise InputError(f"{folder / file} is damaged: it has {len(vectors)} vectors instead of {count}")
        _check_array(folder / file, vectors)
        if blocks and vectors.shape[1:] != blocks[0].shape[1:]:
            raise InputError(f"{folder} holds token grids of different sizes: read its shards one by one")
        names += shard.names
        blocks.append(vectors)
    return Vectors(
        tuple(names), blocks[0] if len(blocks) == 1 else np.concatenate(blocks), manifest.fingerprint
    )


READERS: dict[str, Callable[[Path, Path], Vectors]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
