"""Speed and memory of the model for dtypes, bits and batch sizes."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from ..backend.device import compute_dtype
from ..backend.threads import computing
from ..inference.pooling import check_pooling, pool
from ..inference.stream import evaluated
from ..loading import AnyModel
from ..messages import duration, size
from ..models.lit import normalize
from .architecture import Architecture
from .options import Setting
from .timing import Timing, measure

LEAST_RUNS, MOST_RUNS = 2, 30
TOO_LONG = 10  # times the budget: a cell that would take longer is left out
ROOM = 0.8  # of the memory, for a cell
OUT_OF_MEMORY = re.compile(r"memory|alloc", re.I)  # in the messages of MLX's backends


@dataclass(frozen=True)
class Cell:
    """The measurement of a setting, or why there is none.

    Attributes:
        setting: dtype, bits, batch size.
        timing: of a batch: pixels in, vectors out.
        peak_bytes: the most memory that MLX held at once, weights included.
        weight_bytes: memory of the weights.
        left_out: why the setting was not tried.
        error: why it failed.
    """

    setting: Setting
    timing: Timing | None = None
    peak_bytes: int | None = None
    weight_bytes: int | None = None
    left_out: str | None = None
    error: str | None = None

    @property
    def images_per_second(self) -> float | None:
        """In the run of median duration; None without a measurement."""
        return None if self.timing is None else self.setting.batch_size / self.timing.median

    def to_dict(self) -> dict[str, Any]:
        """Plain values; numbers are null without a measurement."""
        timing = self.timing
        return {
            "dtype": self.setting.dtype,
            "bits": self.setting.bits,
            "batch_size": self.setting.batch_size,
            "images_per_second": self.images_per_second,
            "seconds": timing and timing.median,
            "fastest_seconds": timing and timing.fastest,
            "slowest_seconds": timing and timing.slowest,
            "runs": len(timing.seconds) if timing else 0,
            "peak_memory_bytes": self.peak_bytes,
            "weights_bytes": self.weight_bytes,
            "left_out": self.left_out,
            "error": self.error,
        }


@dataclass(frozen=True)
class Bounds:
    """Limits of a measurement.

    Attributes:
        seconds: to measure one setting.
        memory_bytes: of the device; None for no limit.
    """

    seconds: float
    memory_bytes: int | None = None

    def too_much(self, setting: Setting, smaller: Cell | None) -> str | None:
        """Why a setting is not tried, judged by the next smaller batch; None if it is.

        Args:
            setting: the next one.
            smaller: the last measurement of the same weights, with fewer images; None for the first batch size.
        """
        if smaller is None:
            return None
        if smaller.timing is None:
            return f"batch {smaller.setting.batch_size} failed: {smaller.error}"
        factor = setting.batch_size / smaller.setting.batch_size
        seconds = (1 + LEAST_RUNS) * factor * smaller.timing.median
        if seconds > TOO_LONG * self.seconds:
            return f"about {duration(seconds)}"
        weights, peak = smaller.weight_bytes or 0, smaller.peak_bytes or 0
        return self.no_room(round(weights + factor * (peak - weights)))

    def no_room(self, nbytes: int) -> str | None:
        """Why ``nbytes`` are too many; None if they are not."""
        if self.memory_bytes is None or nbytes <= ROOM * self.memory_bytes:
            return None
        return f"needs about {size(nbytes)} of {size(self.memory_bytes)}"


def measure_settings(
    architecture: Architecture, settings: Sequence[Setting], image_size: tuple[int, int], bounds: Bounds
) -> Iterator[Cell]:
    """Measure a model with random weights.

    Args:
        architecture: of the model.
        settings: those of the same weights stand together, in ascending order of the batch size.
        image_size: (H, W) in pixels.
        bounds: time and memory.

    Yields:
        A cell for each setting, in their order. One that fails does not end the others.
    """
    for (name, bits), group in itertools.groupby(settings, lambda setting: (setting.dtype, setting.bits)):
        waiting = list(group)
        dtype = compute_dtype(name)
        if (problem := bounds.no_room(architecture.parameters * dtype.size)) is not None:
            yield from (Cell(setting, left_out=problem) for setting in waiting)
            continue
        try:
            model = architecture.random_model(dtype, bits)
        except (RuntimeError, MemoryError, ValueError) as error:
            yield from (Cell(setting, error=_reason(error)) for setting in waiting)
            continue
        smaller: Cell | None = None
        if waiting[0].batch_size > 1:  # one image, to judge a large batch by
            smaller = _measure(model, dataclasses.replace(waiting[0], batch_size=1), image_size, 0)
        for setting in waiting:
            if (problem := bounds.too_much(setting, smaller)) is not None:
                yield Cell(setting, left_out=problem)
            else:
                yield (smaller := _measure(model, setting, image_size, bounds.seconds))
        del model
        mx.clear_cache()


@computing
def _measure(model: AnyModel, setting: Setting, image_size: tuple[int, int], seconds: float) -> Cell:
    """Measure one setting, as `Embedder` computes: pixels on the host to vectors on the host."""
    pooling = check_pooling(model, "auto")
    pixels = np.random.default_rng(0).standard_normal((setting.batch_size, *image_size, 3), np.float32)

    def run() -> None:
        evaluated(normalize(pool(model, mx.array(pixels), pooling)))

    mx.clear_cache()
    weight_bytes = mx.get_active_memory()
    mx.reset_peak_memory()
    try:
        timing = measure(run, seconds, LEAST_RUNS, MOST_RUNS)
    except (RuntimeError, MemoryError) as error:
        mx.clear_cache()
        return Cell(setting, error=_reason(error))
    return Cell(setting, timing, mx.get_peak_memory(), weight_bytes)


def _reason(error: Exception) -> str:
    """The reason of a failure in a few words."""
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
        return "out of memory"
    return " ".join(str(error).split()) or type(error).__name__
