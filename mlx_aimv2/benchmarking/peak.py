"""What the machine reaches at best through MLX: matrix products, and memory bandwidth."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np

from ..backend.device import compute_dtype, on_cpu
from ..backend.random_state import caller_random_state
from ..backend.threads import computing
from .timing import measure

SMALLEST, LARGEST = 1024, 16384  # rows of the square matrices
LONG_S = 0.05  # a product that takes longer fills the device
COPIED_BYTES = 1 << 28  # far above any cache of a CPU


@computing
def product_rate(size: int = SMALLEST, dtype: str | None = None, budget_s: float = 0.1) -> float:
    """Floating-point operations per second of a square matrix product, in its fastest run.

    Args:
        size: rows and columns of the matrices.
        dtype: of the matrices; None for the one that suits the device.
        budget_s: time to measure.

    Raises:
        InputError: an unknown dtype.
    """
    return 2 * size**3 / _fastest_product(size, compute_dtype(dtype), budget_s)


@computing
def peak_rate(dtype: str | None = None, budget_s: float = 0.5) -> float:
    """The best `product_rate` of several sizes, from 1024 rows up to one that fills the device."""
    size, best, seconds = SMALLEST, 0.0, 0.0
    while size <= LARGEST and seconds < LONG_S:
        seconds = _fastest_product(size, compute_dtype(dtype), budget_s)
        best = max(best, 2 * size**3 / seconds)
        size *= 2
    return best


def _fastest_product(size: int, dtype: mx.Dtype, budget_s: float) -> float:
    """The seconds of the fastest product of two matrices of ``size`` rows and columns."""
    with caller_random_state():
        a, b = (mx.random.normal((size, size)).astype(dtype) for _ in range(2))
        mx.eval(a, b)
    return measure(lambda: mx.eval(a @ b), budget_s).fastest


@computing
def memory_bandwidth(budget_s: float = 0.5) -> float:
    """Bytes per second of copying a large array, read and written ones counted, in its fastest run.

    On a CPU every core copies a part with NumPy, because MLX's copies use one core; on a GPU MLX copies.
    """
    if on_cpu():
        return 2 * COPIED_BYTES / _fastest_cpu_copy(budget_s)
    source = mx.zeros((COPIED_BYTES // 4,), mx.float32)
    mx.eval(source)
    return 2 * COPIED_BYTES / measure(lambda: mx.eval(source + 1), budget_s).fastest


def _fastest_cpu_copy(budget_s: float) -> float:
    cores = os.cpu_count() or 1
    source, target = (np.ones(COPIED_BYTES, np.uint8) for _ in range(2))
    parts = list(zip(np.array_split(target, cores), np.array_split(source, cores), strict=True))
    with ThreadPoolExecutor(cores) as pool:
        return measure(lambda: list(pool.map(lambda part: np.copyto(*part), parts)), budget_s).fastest
