"""The files of a folder of shards: vectors with their names, the marks of their files, and their order."""

from __future__ import annotations

import json
import os
import struct
import tokenize
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.files import read_header
from ..checkpoints.headers import TensorInfo
from ..errors import DamagedFileError, InputError
from .files import Rows, WriteColumns, import_pyarrow, write_npz, write_parquet, write_safetensors
from .fingerprint import Fingerprint
from .shard_rows import FileMark

LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of a member of a zip file
UNREADABLE = (  # the exceptions of numpy, zipfile and others for damaged files; numpy reads headers as Python
    OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError, RuntimeError,
    MemoryError, OverflowError, SyntaxError, tokenize.TokenError, struct.error, zipfile.BadZipFile, DamagedFileError,
)  # fmt: skip
Content = tuple[list[str], dict[str, Any], tuple[int, ...], dict[str, list[Any]]]  # see `ShardFormat.read`
MARKS = ("places", "sizes", "mtimes_ns", "digests")  # columns of every shard with marks


@dataclass(frozen=True)
class Shard:
    """The content of a shard besides its vectors.

    Attributes:
        names: of the rows.
        fingerprint: of the vectors.
        shape: (N, ...) of the vectors.
        marks: of the files of the rows; None in a shard of an old version.
        positions: of the rows in the input of the runs; None in a shard of an old version.
    """

    names: list[str]
    fingerprint: dict[str, Any]
    shape: tuple[int, ...]
    marks: list[FileMark] | None = None
    positions: list[int] | None = None


@dataclass(frozen=True)
class ShardFormat:
    """A format of shards.

    Attributes:
        write: writes a file with columns of texts and whole numbers beside the vectors, whole or not at all.
        read: names, fingerprint, shape of the vectors, and columns.
        vectors: all vectors; mapped into memory where the format can.
        is_mapped: whether it can.
    """

    write: WriteColumns
    read: Callable[[Path], Content]
    vectors: Callable[[Path], np.ndarray]
    is_mapped: bool = True


def write_shard(
    path: Path,
    names: Sequence[str],
    marks: Sequence[FileMark] | None,
    positions: Sequence[int],
    rows: Rows,
    fingerprint: Fingerprint,
) -> None:
    """Write a shard in the format of its suffix, whole or not at all."""
    columns: dict[str, list[str] | list[int]] = {"positions": list(positions)}
    if marks is not None:
        columns |= {
            "places": [mark.place for mark in marks],
            "sizes": [mark.size for mark in marks],
            "mtimes_ns": [mark.mtime_ns for mark in marks],
            "digests": [mark.digest for mark in marks],
        }
        if any(mark.part for mark in marks):
            columns["parts"] = [mark.part for mark in marks]
    SHARD_FORMATS[path.suffix].write(path, names, rows, fingerprint, columns)


def read_shard(path: Path) -> Shard:
    """Read a shard, or another file of its format, without its vectors; raise InputError for a damaged file."""
    try:
        names, fingerprint, shape, columns = SHARD_FORMATS[path.suffix.lower()].read(path)
        marks = positions = None
        if set(MARKS) <= columns.keys():
            parts = columns.get("parts", [""] * len(names))
            marks = [
                FileMark(str(place), int(size), int(mtime), str(digest), str(part))
                for place, size, mtime, digest, part in zip(
                    *(columns[name] for name in MARKS), parts, strict=True
                )
            ]
        if "positions" in columns:
            positions = [int(position) for position in columns["positions"]]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("its names are no list of texts")
        if any(column is not None and len(column) != len(names) for column in (marks, positions)):
            raise ValueError("it has not one name for each row")
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    return Shard(names, fingerprint, shape, marks, positions)


def map_vectors(path: Path) -> np.ndarray:
    """The vectors of a shard, mapped into memory where the format can; raise InputError for a damaged file."""
    try:
        return SHARD_FORMATS[path.suffix.lower()].vectors(path)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> InputError:
    if isinstance(error, InputError):
        return error
    reason = " ".join(str(error).split()).removeprefix(f"{path}: ")
    return InputError(f"{path} cannot be read ({reason})")


def _read_npz(path: Path) -> Content:
    with path.open("rb") as file, np.load(file) as data:
        others = [name for name in data.files if name not in ("paths", "fingerprint", "embeddings")]
        columns = {name: data[name].tolist() for name in others}
        if "places" in columns:
            columns["places"] = [os.fsdecode(place) for place in columns["places"]]
        fingerprint = dict(json.loads(str(data["fingerprint"])))
        names = data["paths"].tolist()
    return [str(name) for name in names], fingerprint, _map_npz(path).shape, columns


def _map_npz(path: Path) -> np.ndarray:
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        member = archive.getinfo("embeddings.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            with archive.open(member) as stored:
                return np.lib.format.read_array(stored, allow_pickle=False)
        file.seek(member.header_offset)
        header = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        file.seek(member.header_offset + LOCAL_HEADER.size + header[-2] + header[-1])
        return map_npy(path, file.tell(), member.file_size)


def map_npy(path: Path, start: int = 0, nbytes: int | None = None) -> np.ndarray:
    """The array of the `.npy` file in the bytes ``start`` to ``start + nbytes`` of ``path``, mapped into memory.

    Raises:
        OSError, ValueError: the file is damaged, or its values are Python objects.
    """
    with path.open("rb") as file:
        file.seek(start)
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of .npy is not known")
        headers = np.lib.format
        read = headers.read_array_header_1_0 if version == (1, 0) else headers.read_array_header_2_0
        shape, fortran_order, dtype = read(file)
        offset, size = file.tell(), os.fstat(file.fileno()).st_size
    wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize if shape else dtype.itemsize
    end = size if nbytes is None else start + nbytes
    if dtype.hasobject or min(shape, default=0) < 0 or offset + wanted != end or end > size:
        raise ValueError("it is cut off, or holds something else than numbers")
    if not wanted:
        return np.empty(shape, dtype=dtype)
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran_order else "C")


def _read_safetensors(path: Path) -> Content:
    info, metadata = _safetensors_header(path)
    columns = json.loads(metadata.get("columns", "{}"))
    return json.loads(metadata["paths"]), dict(json.loads(metadata["fingerprint"])), info.shape, dict(columns)


def _safetensors_header(path: Path) -> tuple[TensorInfo, dict[str, str]]:
    header = read_header((path,))
    info = header.tensors.get("embeddings")
    if info is None or not {"paths", "fingerprint"} <= header.metadata.keys():
        raise InputError(f"{path} holds no vectors that `embed` wrote")
    if info.dtype != "F32":
        raise InputError(f"{path} holds {info.dtype}, not float32 vectors in rows")
    return info, header.metadata


def _map_safetensors(path: Path) -> np.ndarray:
    info, _ = _safetensors_header(path)
    if not info.nbytes:
        return np.empty(info.shape, dtype=np.float32)
    return np.memmap(path, "<f4", "r", info.start, info.shape)


def _read_parquet(path: Path) -> Content:
    pa, pq = import_pyarrow("Reading")
    try:
        with pq.ParquetFile(path) as file:
            schema, note = file.schema_arrow, file.schema_arrow.metadata or {}
            kind = schema.field("embedding").type if "embedding" in schema.names else None
            if b"fingerprint" not in note or kind is None or not pa.types.is_fixed_size_list(kind):
                raise InputError(f"{path} holds no vectors that `embed` wrote")
            fingerprint, shape = (
                dict(json.loads(note[b"fingerprint"])),
                (file.metadata.num_rows, kind.list_size),
            )
            table = file.read([name for name in schema.names if name != "embedding"])
        columns = {name: table[name].to_pylist() for name in table.column_names}
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    if "places" in columns:
        columns["places"] = [os.fsdecode(place) for place in columns["places"]]
    return columns.pop("path"), fingerprint, shape, columns


def _parquet_vectors(path: Path) -> np.ndarray:
    pa, pq = import_pyarrow("Reading")
    try:
        table = pq.read_table(path, columns=["embedding"])
        chunks = table["embedding"].chunks
        width = table.schema.field("embedding").type.list_size
        values = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in chunks]
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    rows = np.concatenate(values) if values else np.zeros(0, np.float32)
    return rows.reshape(-1, width)


SHARD_FORMATS = {
    ".safetensors": ShardFormat(write_safetensors, _read_safetensors, _map_safetensors),
    ".npz": ShardFormat(write_npz, _read_npz, _map_npz),
    ".parquet": ShardFormat(write_parquet, _read_parquet, _parquet_vectors, is_mapped=False),
}
