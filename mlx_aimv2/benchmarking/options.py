"""`BenchOptions`: what to measure, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..backend.device import DTYPES
from ..errors import InputError
from ..options.fields import check_fields, like, more_than, option
from ..processing.options import NativeOptions

PLAIN = "none"  # bits of weights that are not quantized
BITS = (PLAIN, "8", "6", "5", "4", "3", "2")
CPU, GPU = ("float32",), ("float16", "bfloat16")  # the dtypes that suit them
CPU_BATCHES, GPU_BATCHES = (1, 2, 4, 8), (1, 8, 32)
LARGEST_BATCH = 4096
Value = TypeVar("Value")


@dataclass(frozen=True)
class Setting:
    """One way to compute.

    Attributes:
        dtype: of the weights that are not quantized, and of the computation.
        bits: of the quantized weights; None for plain ones.
        batch_size: images computed at once.
    """

    dtype: str
    bits: int | None
    batch_size: int

    @property
    def weights(self) -> str:
        """Dtype and bits as text, such as `float16` or `float16, 4-bit`."""
        return self.dtype if self.bits is None else f"{self.dtype}, {self.bits}-bit"

    def __str__(self) -> str:
        """Such as `float16, 4-bit, batch 8`."""
        return f"{self.weights}, batch {self.batch_size}"


@dataclass(frozen=True)
class BenchOptions:
    """Options of `bench`; an empty tuple stands for what suits the device.

    Raises:
        InputError: a value is out of range or unknown.
    """

    dtypes: tuple[str, ...] = option(
        (),
        "float32, float16, bfloat16, separated by commas. [default: float16,bfloat16 on a GPU, float32 on a CPU]",
        metavar="NAMES",
    )
    bits: tuple[str, ...] = option(
        (),
        "Bits of quantized weights, or none. [default: none,8,4 on a GPU, none on a CPU]",
        metavar="NUMBERS",
    )
    batch_sizes: tuple[str, ...] = option(
        (), "Images computed at once. [default: 1,8,32 on a GPU, 1,2,4,8 on a CPU]", metavar="NUMBERS"
    )
    images: tuple[str, ...] = option(
        (),
        "Images, folders or patterns to decode. [default: a drawn photo of 12 megapixels]",
        metavar="IMAGES",
    )
    seconds: float = option(
        3.0,
        "Time for each measurement; what would take ten times as long is left out.",
        None,
        more_than(0),
    )
    max_patches: int = like(NativeOptions, "max_patches", panel=None)

    def __post_init__(self) -> None:
        check_fields(self)
        self.settings(on_cpu=True)
        NativeOptions(1, self.max_patches)

    def settings(self, on_cpu: bool) -> list[Setting]:
        """Every combination of dtype, bits and batch size: the same weights together, batches in ascending order.

        Args:
            on_cpu: whether a CPU computes, where half precision and quantized weights are slow.
        """
        dtypes = _values("dtypes", self.dtypes, DTYPES, str) or (CPU if on_cpu else GPU)
        bits = _values("bits", self.bits, BITS, lambda text: None if text == PLAIN else int(text))
        bits = bits or ((None,) if on_cpu else (None, 8, 4))
        sizes = _values("batch-sizes", self.batch_sizes, None, _batch_size)
        sizes = sizes or (CPU_BATCHES if on_cpu else GPU_BATCHES)
        return [Setting(dtype, bit, size) for dtype in dtypes for bit in bits for size in sorted(sizes)]


def _values(
    name: str, texts: Sequence[str], valid: Sequence[str] | None, read: Callable[[str], Value]
) -> tuple[Value, ...]:
    """The different values of an option whose values are separated by commas."""
    parts = [part.strip() for text in texts for part in text.split(",")]
    for part in parts:
        if not part:
            raise InputError(f"--{name} {','.join(texts)!r} has an empty value")
        if valid is not None and part not in valid:
            raise InputError(f"--{name} {part!r} is not one of {', '.join(valid)}")
    return tuple(dict.fromkeys(map(read, parts)))


def _batch_size(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= LARGEST_BATCH:
        raise InputError(f"--batch-sizes {text!r} is not a whole number from 1 to {LARGEST_BATCH}")
    return int(text)
