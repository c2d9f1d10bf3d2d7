"""Writing safetensors files one tensor at a time, in shards with an index.

Names, dtypes and shapes are known before the first tensor is computed, so the header is written first and then the
data; only one tensor is in memory. Source of the format: the safetensors documentation.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import mlx.core as mx
import numpy as np

from ..errors import CheckpointError
from ..storage.json_files import write_json
from .file_names import INDEX, SINGLE, shard_name
from .headers import DTYPE_NAMES

ALIGNMENT = 8  # bytes, of the start of the data


@dataclass(frozen=True)
class Entry:
    """The entry of a tensor in a header to write."""

    name: str
    dtype: mx.Dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * self.dtype.size


def split_shards(entries: Sequence[Entry], max_shard_bytes: int) -> list[list[Entry]]:
    """Entries in order, in groups of at most ``max_shard_bytes`` (a larger tensor has a file to itself)."""
    shards: list[list[Entry]] = []
    room = -1
    for entry in entries:
        if entry.nbytes > room:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(entry)
        room -= entry.nbytes
    return shards


def write_shards(
    folder: Path,
    entries: Sequence[Entry],
    tensors: Iterable[tuple[str, mx.array]],
    max_shard_bytes: int,
    metadata: Mapping[str, str],
) -> None:
    """Write `model.safetensors`, or shards and their index, while ``tensors`` are computed one by one.

    Args:
        folder: the folder of the files.
        entries: every tensor, in the order of ``tensors``.
        tensors: names and arrays, lazy or not.
        max_shard_bytes: data in one file.
        metadata: of every file.

    Raises:
        CheckpointError: a tensor does not match its entry.
    """
    shards = split_shards(entries, max_shard_bytes)
    names = [shard_name(number, len(shards)) for number in range(len(shards))]
    names = [SINGLE] if len(shards) == 1 else names
    stream = iter(tensors)
    for name, shard in zip(names, shards, strict=True):
        with (folder / name).open("wb") as file:
            write_safetensors(file, shard, stream, metadata)
    if len(shards) > 1:
        places = {entry.name: name for name, shard in zip(names, shards, strict=True) for entry in shard}
        index = {"metadata": {"total_size": sum(entry.nbytes for entry in entries)}, "weight_map": places}
        write_json(folder / INDEX, index)


def write_safetensors(
    file: IO[bytes],
    entries: Sequence[Entry],
    tensors: Iterator[tuple[str, mx.array]],
    metadata: Mapping[str, str],
) -> None:
    """Write a safetensors file; ``tensors`` are its names and arrays in the order of ``entries``.

    Raises:
        CheckpointError: a tensor does not match its entry.
    """
    file.write(header_bytes(entries, metadata))
    for entry in entries:
        file.write(planned_bytes(entry, *next(tensors)))


def header_bytes(entries: Iterable[Entry], metadata: Mapping[str, str]) -> bytes:
    """The first part of a safetensors file: its header and the header's length."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": DTYPE_NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [at, at + entry.nbytes],
        }
        at += entry.nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % ALIGNMENT)
    return struct.pack("<Q", len(raw)) + raw


def planned_bytes(entry: Entry, name: str, tensor: mx.array) -> bytes:
    """A tensor's data in row-major order, little-endian; raise CheckpointError if it does not match its entry."""
    if (name, tensor.dtype, tuple(tensor.shape)) != (entry.name, entry.dtype, entry.shape):
        raise CheckpointError(f"{name} became {tensor.dtype} {tensor.shape}, not what was planned: {entry}")
    tensor = mx.contiguous(tensor)
    if tensor.dtype == mx.bfloat16:  # numpy lacks it
        tensor = tensor.view(mx.uint16)
    mx.eval(tensor)
    return np.array(tensor, copy=False).tobytes()
