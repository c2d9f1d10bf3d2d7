"""Headers of weight files: names, dtypes and shapes of tensors, and the checks that all formats share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

from ..errors import DamagedFileError

MAX_SIDE = 2**31 - 1  # of a tensor: MLX counts in 32 bits
MAX_DIMENSIONS = 8  # a patch kernel has four
MAX_TENSORS = 100_000  # the largest published checkpoint has 340, a packed one three times as many
MAX_NAME = 1000  # characters
DTYPE_NAMES = {  # of safetensors; without float64, which MLX has on no GPU
    mx.float32: "F32", mx.float16: "F16", mx.bfloat16: "BF16", mx.uint32: "U32", mx.int32: "I32",
    mx.uint16: "U16", mx.uint8: "U8", mx.int8: "I8", mx.int64: "I64", mx.bool_: "BOOL", mx.int16: "I16",
    mx.uint64: "U64",
}  # fmt: skip
MLX_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """The entry of one tensor in a header."""

    dtype: str  # the name in safetensors, such as F32
    shape: tuple[int, ...]
    file: Path
    start: int  # of its data in the file or member, in bytes
    nbytes: int
    member: str | None = None  # in an .npz, which is a zip file
    column_major: bool = False  # the order of its data, which is row-major otherwise


@dataclass(frozen=True)
class Header:
    """All tensors of a checkpoint, from all its files."""

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


def check_tensor_name(path: Path, name: str) -> None:
    """Raise DamagedFileError if a tensor's name has control characters, or is too long for a message."""
    if not name.isprintable() or len(name) > MAX_NAME:
        raise DamagedFileError(f"{path}: its header is damaged (a tensor named {name!r:.80})")


def check_dimensions(path: Path, name: str, count: int) -> None:
    """Raise DamagedFileError if a tensor has more dimensions than any weight."""
    if count > MAX_DIMENSIONS:
        raise DamagedFileError(
            f"{path}: {name} has {count} dimensions, and no weight has over {MAX_DIMENSIONS}"
        )


def tensor_bytes(path: Path, name: str, dtype: object, shape: Sequence[object]) -> int:
    """The bytes of a tensor's data.

    Raises:
        DamagedFileError: MLX does not read the dtype, or no model has such a shape.
    """
    check_dimensions(path, name, len(shape))
    sides = [side for side in shape if isinstance(side, int) and not isinstance(side, bool) and side >= 0]
    if len(sides) != len(shape):
        raise DamagedFileError(f"{path}: {name} has a shape or offsets that are not whole numbers")
    if max(sides, default=0) > MAX_SIDE:
        raise DamagedFileError(f"{path}: {name} has a side of {max(sides)}, which is too large")
    if not isinstance(dtype, str) or dtype not in MLX_DTYPES:
        raise DamagedFileError(f"{path}: {name} has the dtype {dtype!r:.80}, which is not supported")
    return math.prod(sides) * int(MLX_DTYPES[dtype].size)


def check_count(path: Path, count: int) -> None:
    """Raise DamagedFileError if a file has more tensors than any model."""
    if count > MAX_TENSORS:
        raise DamagedFileError(f"{path} claims {count} tensors, and no model has over {MAX_TENSORS}")


def check_apart(path: Path, spans: Iterable[tuple[int, int, str]]) -> None:
    """Raise DamagedFileError if two tensors share bytes of a file; ``spans`` are (begin, end, name)."""
    last_end, last_name = 0, ""
    for begin, end, name in sorted(span for span in spans if span[0] < span[1]):
        if begin < last_end:
            raise DamagedFileError(f"{path}: its header is damaged ({last_name} and {name} share bytes)")
        last_end, last_name = end, name
