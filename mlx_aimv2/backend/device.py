"""The device MLX computes on, the dtype that suits it, and whether MLX can be imported.

MLX is imported inside functions only: a fast BLAS has to be loaded before it (`backend.blas`).
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import BackendError, InputError
from .import_advice import import_problem

if TYPE_CHECKING:
    import mlx.core as mx

DTYPES = ("float32", "float16", "bfloat16")  # that weights are computed and stored in
DEVICES = ("cpu", "gpu")


def require_mlx() -> None:
    """Import MLX.

    Raises:
        BackendError: MLX is not installed, has no backend for this machine, or does not fit it. The message quotes
            the reason and says what to do.
    """
    if "mlx.core" in sys.modules:
        return
    try:
        importlib.import_module("mlx.core")
    except ImportError as error:
        raise BackendError(import_problem(error)) from error


def on_cpu() -> bool:
    """Whether MLX computes on the CPU by default."""
    import mlx.core as mx

    return bool(mx.default_device().type == mx.DeviceType.cpu)


def on_metal() -> bool:
    """Whether MLX computes on an Apple GPU by default."""
    import mlx.core as mx

    return not on_cpu() and bool(mx.metal.is_available())


def gpu_available() -> bool:
    """Whether MLX can compute on a GPU of this machine (Metal or CUDA)."""
    import mlx.core as mx

    return bool(mx.metal.is_available() or (hasattr(mx, "cuda") and mx.cuda.is_available()))


def use_device(name: str) -> None:
    """Compute on ``cpu`` or ``gpu`` from now on, in this process.

    Raises:
        InputError: the name is another, or this machine has no GPU.
    """
    import mlx.core as mx

    if name not in DEVICES:
        raise InputError(f"device {name!r} is neither cpu nor gpu")
    if name == "gpu" and not gpu_available():
        raise InputError("MLX finds no GPU on this machine: use --device cpu")
    mx.set_default_device(mx.cpu if name == "cpu" else mx.gpu)


def compute_dtype(name: str | None) -> mx.Dtype:
    """The dtype to compute in.

    Args:
        name: float32, float16 or bfloat16; None or "auto" for float32 on a CPU (half precision is twenty times
            slower there) and float16 on a GPU.

    Raises:
        InputError: the name is another.
    """
    import mlx.core as mx

    if name is None or name == "auto":
        return mx.float32 if on_cpu() else mx.float16
    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is not one of auto, {', '.join(DTYPES)}")
    dtype: mx.Dtype = getattr(mx, name)
    return dtype


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Return freed memory to the system at once. MLX's cache does not help where each tensor has another size."""
    import mlx.core as mx

    limit = mx.set_cache_limit(0)
    try:
        yield
    finally:
        mx.set_cache_limit(limit)
