"""The rate of matrix products through MLX."""

from __future__ import annotations

import mlx.core as mx

from ..backend.device import compute_dtype
from ..backend.random_state import caller_random_state
from ..backend.threads import computing
from .timing import measure


@computing
def product_rate(size: int = 1024, dtype: str | None = None, budget_s: float = 0.1) -> float:
    """Floating-point operations per second of a square matrix product, in its fastest run.

    Args:
        size: rows and columns of the matrices.
        dtype: of the matrices; None for the one that suits the device.
        budget_s: time to measure.

    Raises:
        InputError: an unknown dtype.
    """
    array_dtype = compute_dtype(dtype)
    with caller_random_state():
        a, b = (mx.random.normal((size, size)).astype(array_dtype) for _ in range(2))
        mx.eval(a, b)
    return 2 * size**3 / measure(lambda: mx.eval(a @ b), budget_s).fastest
