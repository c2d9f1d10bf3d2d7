"""Files of a folder of shards: the shards (`.npz` with vectors, names and file marks) and their manifest."""

from __future__ import annotations

import json
import os
import re
import struct
import tokenize
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, OutputError
from ..storage.atomic import replacing
from .files import Rows, write_vectors_npz
from .fingerprint import Fingerprint
from .shard_rows import FileMark

MANIFEST, PART = "manifest.json", ".part"
SHARD_NAME = re.compile(r"embeddings-(\d{5,})\.npz")
LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of a member of a zip file
UNREADABLE = (  # the exceptions of numpy and zipfile for files that are not .npz; numpy reads headers as Python
    OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError, RuntimeError,
    MemoryError, SyntaxError, tokenize.TokenError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


@dataclass(frozen=True)
class Manifest:
    """The valid shards of a folder.

    Attributes:
        fingerprint: of the vectors.
        shards: the number of rows by the file name of the shard.
    """

    fingerprint: dict[str, Any]
    shards: dict[str, int]

    def write(self, folder: Path) -> None:
        """Write the manifest, whole or not at all."""
        shards = [{"file": file, "rows": rows} for file, rows in self.shards.items()]
        with replacing(folder / MANIFEST) as partial:
            text = json.dumps({"fingerprint": self.fingerprint, "shards": shards}, indent=2)
            partial.write_text(text, encoding="utf-8")


def part_folder(path: Path) -> Path:
    """The folder of shards beside a result, for the vectors of a run until the result is complete."""
    return path.with_name(f"{path.name}{PART}")


def shard_number(file: str) -> int | None:
    """The number in the file name of a shard; None for other file names."""
    match = SHARD_NAME.fullmatch(file)
    return int(match[1]) if match else None


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None if the folder is empty.

    Raises:
        InputError: the manifest is damaged or missing, or the folder is not a folder of shards.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        files, others = _content(folder)
        if others:
            raise InputError(f"{folder} holds other files ({others[0]}): name a new folder")
        if files:
            raise InputError(
                f"{folder} holds shards ({files[0]}) and no {MANIFEST}: put it back, or replace the folder with"
                " --force"
            )
        return None
    try:
        data = json.loads(path.read_bytes())
        fingerprint = dict(data["fingerprint"])
        shards = {str(shard["file"]): int(shard["rows"]) for shard in data["shards"]}
        foreign = [file for file in shards if shard_number(file) is None]
        if foreign:
            raise ValueError(f"it names {foreign[0]!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a manifest of embeddings: {error}; name a new folder, or replace it with --force"
        ) from error
    return Manifest(fingerprint, shards)


def check_replaceable(folder: Path) -> None:
    """Raise InputError if a folder to remove has other files than shards."""
    _, others = _content(folder) if folder.is_dir() else ([], [])
    if others:
        raise InputError(
            f"{folder} holds other files ({others[0]}), which --force does not remove: name a new folder"
        )


def _content(folder: Path) -> tuple[list[str], list[str]]:
    """The names of shards, and of other visible files, in a folder."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise OutputError.reading(folder, error) from error
    others = [name for name in names if shard_number(name) is None and name != MANIFEST]
    return [name for name in names if shard_number(name) is not None], others


@dataclass(frozen=True)
class Shard:
    """The content of a shard besides its vectors.

    Attributes:
        names: of the rows.
        marks: of the files of the rows; None in a shard of an old version.
        fingerprint: of the vectors.
    """

    names: list[str]
    marks: list[FileMark] | None
    fingerprint: dict[str, Any]


def write_shard(
    path: Path, names: Sequence[str], marks: Sequence[FileMark] | None, rows: Rows, fingerprint: Fingerprint
) -> None:
    """Write a shard, whole or not at all."""
    more: dict[str, np.ndarray] = {}
    if marks is not None:
        more = {
            "places": np.array([os.fsencode(mark.place) for mark in marks], dtype=np.bytes_),
            "sizes": np.array([mark.size for mark in marks], dtype=np.int64),
            "mtimes_ns": np.array([mark.mtime_ns for mark in marks], dtype=np.int64),
            "digests": np.array([mark.digest for mark in marks], dtype=np.str_),
        }
        if any(mark.part for mark in marks):
            more["parts"] = np.array([mark.part for mark in marks], dtype=np.str_)
    write_vectors_npz(path, names, rows, fingerprint, more)


def read_shard(path: Path) -> Shard:
    """Read a shard without its vectors; raise InputError for a missing or damaged file."""
    try:
        with path.open("rb") as file, np.load(file) as data:
            names, fingerprint = data["paths"].tolist(), dict(json.loads(str(data["fingerprint"])))
            marks = None
            if "places" in data.files:
                columns = [data[name].tolist() for name in ("places", "sizes", "mtimes_ns", "digests")]
                parts = data["parts"].tolist() if "parts" in data.files else [""] * len(columns[0])
                marks = [
                    FileMark(os.fsdecode(place), int(size), int(mtime), str(digest), str(part))
                    for place, size, mtime, digest, part in zip(*columns, parts, strict=True)
                ]
    except UNREADABLE as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    if not isinstance(names, list) or (marks is not None and len(marks) != len(names)):
        raise InputError(f"{path} cannot be read (it has not one name for each row)")
    return Shard([str(name) for name in names], marks, fingerprint)


def map_vectors(path: Path) -> np.ndarray:
    """The vectors of an `.npz` file, mapped into memory if uncompressed; raise InputError for a damaged file."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            member = archive.getinfo("embeddings.npy")
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
