"""Weight files on disk: which ones a folder holds, what their headers say, and reading them lazily.

A safetensors header is read and checked here before MLX opens the file, because a damaged one must end in one
clear line, and because shapes are all that layout, configuration and the strict comparison need.
Source of the format: the safetensors documentation ("Format").
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..errors import ConfigError, DamagedFileError, NotACheckpointError
from .selection import INDEX, choose_weights, shard_names

MAX_HEADER = 100 * 2**20  # bytes; the limit of the safetensors library
MAX_JSON = 64 * 2**20  # bytes
MAX_SIDE = 2**31 - 1  # of a tensor: MLX counts in 32 bits
ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
UNREADABLE = ("F64",)  # MLX has no float64 on a GPU


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor."""

    dtype: str  # as safetensors calls it, such as F32
    shape: tuple[int, ...]
    file: Path
    start: int  # of its data in the file, in bytes
    nbytes: int


@dataclass(frozen=True)
class Header:
    """All tensors of a checkpoint, over all its files."""

    files: tuple[Path, ...]
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return {name: info.shape for name, info in self.tensors.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.nbytes for info in self.tensors.values())


def find_weights(folder: Path, weights: str | None = None) -> tuple[Path, ...]:
    """The weight files of a checkpoint folder.

    Args:
        folder: the checkpoint.
        weights: the name of one file in it; None for the usual ones (`model.safetensors`, shards with an index,
            Apple's `mlx_model.safetensors`, or the only safetensors file there is).

    Raises:
        NotACheckpointError: nothing of the kind, naming what was looked for.
        PickleRefusedError: only pickled weights.
        DamagedFileError: an index that does not fit its folder.
    """
    try:
        names = {entry.name for entry in folder.iterdir() if not entry.is_dir()}
    except OSError as error:
        raise NotACheckpointError(f"{folder} cannot be read: {error.strerror or error}") from error
    entry = choose_weights(names, str(folder), weights)
    if entry != INDEX:
        return (_inside(folder, entry),)
    index = folder / INDEX
    return tuple(_inside(folder, name) for name in shard_names(read_json(index), str(index)))


def _inside(folder: Path, name: str) -> Path:
    """A file of this folder by name; a name that leads elsewhere is refused."""
    if not name or name in (".", "..") or any(sign in name for sign in ("/", "\\", "\0")):
        raise DamagedFileError(f"{folder}: {name!r} is not the name of a file in this folder")
    path = folder / name
    if not path.is_file():
        raise NotACheckpointError(
            f"{folder} lacks the weight file {name}: download it again, or complete the copy"
        )
    return path


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ConfigError: unreadable, too large, not JSON, or not an object.
    """
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is not a regular file")
    try:
        if path.stat().st_size > MAX_JSON:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes is too large for a configuration")
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a JSON object, not {type(data).__name__}")
    return data


def read_header(files: tuple[Path, ...]) -> Header:
    """The headers of one or several safetensors files as one.

    Raises:
        DamagedFileError: a file is cut off, its header is not what the format says, or a name comes twice.
    """
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    for path in files:
        own, note = _read_one_header(path)
        twice = sorted(tensors.keys() & own.keys())
        if twice:
            raise DamagedFileError(f"{path}: the tensor {twice[0]} is in another file of the checkpoint too")
        tensors.update(own)
        metadata.update(note)
    return Header(files, tensors, metadata)


def _read_one_header(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise DamagedFileError(f"{path} is not a safetensors file, or is cut off: download it again")
            raw = file.read(length)
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path}: its header is damaged ({error})") from error
    if not isinstance(header, dict):
        raise DamagedFileError(f"{path}: its header is damaged (not an object)")
    note = header.pop("__metadata__", {})
    note = {k: v for k, v in note.items() if isinstance(v, str)} if isinstance(note, dict) else {}
    data = 8 + length
    return {name: _tensor_info(path, name, entry, (data, size)) for name, entry in header.items()}, note


def _tensor_info(path: Path, name: str, entry: object, span: tuple[int, int]) -> TensorInfo:
    """One entry of a header, held against the bytes that are there: ``span`` of the file holds the data."""
    first, room = span[0], span[1] - span[0]
    if not name.isprintable():
        raise DamagedFileError(f"{path}: its header is damaged (a tensor named {name!r:.80})")
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]  # type: ignore[index]
        numbers = [*shape, begin, end]
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{path}: the entry of {name} in its header is damaged") from error
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise DamagedFileError(f"{path}: {name} has a shape or offsets that are no whole numbers")
    if max(shape, default=0) > MAX_SIDE:
        raise DamagedFileError(f"{path}: {name} has a side of {max(shape)}, which is too large")
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES or dtype in UNREADABLE:
        raise DamagedFileError(f"{path}: {name} has the dtype {dtype!r}, which is not supported")
    nbytes = math.prod(shape) * ITEM_BYTES[dtype]
    if nbytes != end - begin:
        raise DamagedFileError(f"{path}: {name} of shape {shape} needs {nbytes} bytes and has {end - begin}")
    if end > room:
        raise DamagedFileError(
            f"{path} is cut off: {name} ends {end - room} bytes after it; download it again"
        )
    return TensorInfo(dtype, tuple(shape), path, first + begin, nbytes)


def open_tensors(header: Header) -> dict[str, mx.array]:
    """Every tensor of a checkpoint as a lazy array: data is read when an array is evaluated, not here.

    Raises:
        DamagedFileError: MLX cannot open a file.
    """
    tensors: dict[str, mx.array] = {}
    for path in header.files:
        try:
            loaded = mx.load(str(path))
            tensors.update(loaded if isinstance(loaded, dict) else {})
        except (RuntimeError, ValueError) as error:
            raise DamagedFileError(f"{path} cannot be opened: {error}") from error
    return tensors
