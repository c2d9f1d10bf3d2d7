"""One shard of a folder of embeddings: an `.npz` file with vectors, names, and marks of the files they are of."""

from __future__ import annotations

import json
import os
import struct
import tokenize
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .file_marks import FileMark
from .files import Rows, write_npz
from .fingerprint import Fingerprint

LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of a member of a zip file
UNREADABLE = (  # what numpy and zipfile raise for files that are no .npz
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,  # numpy reads headers as Python
    struct.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Shard:
    """What a shard says besides its vectors.

    Attributes:
        names: of its rows.
        marks: of the files of its rows; None where a version wrote it that kept none.
        made_by: the fingerprint of what made its vectors.
    """

    names: list[str]
    marks: list[FileMark] | None
    made_by: dict[str, Any]


def write_shard(
    path: Path, names: Sequence[str], marks: Sequence[FileMark] | None, rows: Rows, fingerprint: Fingerprint
) -> None:
    """Write a shard, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    more: Mapping[str, np.ndarray] = {}
    if marks is not None:
        more = {
            "places": np.array([os.fsencode(mark.place) for mark in marks], dtype=np.bytes_),
            "sizes": np.array([mark.size for mark in marks], dtype=np.int64),
            "mtimes_ns": np.array([mark.mtime_ns for mark in marks], dtype=np.int64),
            "digests": np.array([mark.digest for mark in marks], dtype=np.str_),
        }
    write_npz(path, names, rows, fingerprint, more)


def read_shard(path: Path) -> Shard:
    """Read a shard without its vectors.

    Raises:
        InputError: it is missing, damaged, or no shard.
    """
    try:
        with path.open("rb") as file, np.load(file) as data:
            names, made_by = data["paths"].tolist(), dict(json.loads(str(data["fingerprint"])))
            marks = _marks(data) if "places" in data.files else None
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    if not isinstance(names, list) or (marks is not None and len(marks) != len(names)):
        raise InputError(f"{path} cannot be read (it has not one name for each row)")
    return Shard([str(name) for name in names], marks, made_by)


def _marks(data: Mapping[str, Any]) -> list[FileMark]:
    columns = (data[name].tolist() for name in ("places", "sizes", "mtimes_ns", "digests"))
    return [
        FileMark(os.fsdecode(place), int(size), int(mtime), str(digest))
        for place, size, mtime, digest in zip(*columns, strict=True)
    ]


def map_vectors(path: Path, name: str = "embeddings") -> np.ndarray:
    """The vectors of an `.npz` file, mapped into memory where it stores them as they are.

    Raises:
        InputError: it is missing, damaged, or holds none.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            member = archive.getinfo(f"{name}.npy")
            if member.compress_type != zipfile.ZIP_STORED:
                with archive.open(member) as stored:
                    return np.lib.format.read_array(stored, allow_pickle=False)
            file.seek(member.header_offset)
            header = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
            file.seek(member.header_offset + LOCAL_HEADER.size + header[-2] + header[-1])
            return map_npy(path, file.tell(), member.file_size)
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read ({error})") from error


def map_npy(path: Path, start: int = 0, nbytes: int | None = None) -> np.ndarray:
    """The array of a `.npy` file, or of one that begins at ``start`` in another, mapped into memory.

    Raises:
        OSError, ValueError: it is damaged, or its values are Python objects.
    """
    with path.open("rb") as file:
        file.seek(start)
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of .npy is not known")
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, fortran_order, dtype = read(file)
        offset, size = file.tell(), os.fstat(file.fileno()).st_size
    wanted = int(np.prod(shape, dtype=object)) * dtype.itemsize if shape else dtype.itemsize
    end = size if nbytes is None else start + nbytes
    if dtype.hasobject or min(shape, default=0) < 0 or offset + wanted != end or end > size:
        raise ValueError("it is cut off, or holds something else than numbers")
    if not wanted:
        return np.empty(shape, dtype=dtype)
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran_order else "C")
