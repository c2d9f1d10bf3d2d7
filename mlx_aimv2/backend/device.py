"""What the machine offers: the BLAS on Linux, the device, and the dtype that suits it.

This module imports MLX only inside functions: `load_blas` has to run before MLX is imported for the first time.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import site
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BackendError, InputError
from .import_advice import import_problem

if TYPE_CHECKING:
    import mlx.core as mx

BLAS_VARIABLE = "MLX_AIMV2_BLAS"
OPENBLAS = ("libopenblas.so.0", "libopenblasp.so.0", "libopenblaso.so.0", "libopenblas.so")
BLIS = ("libblis.so.4", "libblis.so.3", "libblis.so")
MKL = ("libmkl_rt.so.3", "libmkl_rt.so.2", "libmkl_rt.so.1", "libmkl_rt.so")
DTYPES = ("float32", "float16", "bfloat16")
NO_BLAS = (
    "no fast BLAS was found, so MLX runs about forty times slower on this CPU: "
    "apt-get install libopenblas0-pthread, or pip install mkl (x86-64)"
)


@dataclass(frozen=True)
class Blas:
    """The BLAS that MLX's CPU backend uses, as far as this package had a hand in it."""

    library: str | None = None  # what was loaded
    problem: str | None = None  # one line on what to do, where it is slow

    def __str__(self) -> str:
        """The library, or why there is none."""
        return self.library or self.problem or "the one MLX was built with"


@functools.lru_cache(maxsize=1)
def load_blas() -> Blas:
    """On Linux, load an optimized BLAS for the whole process; once, and before MLX.

    MLX's Linux wheel links the reference BLAS. A library loaded globally before it takes the place of its
    symbols. OpenBLAS, BLIS and MKL are tried in turn, in the environment's own folder first. The variable
    `MLX_AIMV2_BLAS` names another library, or turns this off with "off".

    Returns:
        What was loaded, or what stood in the way. Nothing is raised: a slow BLAS still computes.
    """
    wish = os.environ.get(BLAS_VARIABLE, "")
    if not sys.platform.startswith("linux") or wish.lower() in ("off", "0", "none"):
        return Blas()
    if "mlx.core" in sys.modules:
        problem = "mlx was imported before mlx_aimv2, too late for a fast BLAS: import mlx_aimv2 first"
        return Blas(problem=None if _already_linked() else problem)
    for name in (wish,) if wish else _candidates():
        if _load(name):
            return Blas(library=name)
    return Blas(problem=f"{BLAS_VARIABLE}={wish} is no BLAS library that can be loaded" if wish else NO_BLAS)


def _candidates() -> list[str]:
    folders = [Path(sys.prefix) / "lib"]
    if site.ENABLE_USER_SITE:
        folders.append(Path(site.getuserbase()) / "lib")
    names = []
    for family in (OPENBLAS, BLIS, MKL):
        names += [str(folder / name) for folder in folders for name in family if (folder / name).is_file()]
        names += family
    return names


def _load(name: str) -> bool:
    try:
        return hasattr(ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL), "cblas_sgemm")
    except OSError:
        return False


def _already_linked() -> bool:
    """Whether some fast BLAS came in globally without us, as `LD_PRELOAD` does it."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return False
    return any(f"/{word}" in maps for word in ("libopenblas.so", "libopenblasp", "libblis", "libmkl_rt"))


def require_mlx() -> None:
    """Make sure that MLX can be imported.

    Raises:
        BackendError: it is not installed, came without a backend for this machine, or does not fit it; the reason
            is quoted.
    """
    load_blas()
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


def gpu_available() -> bool:
    """Whether MLX can compute on a GPU here (Metal or CUDA)."""
    import mlx.core as mx

    return bool(mx.metal.is_available() or (hasattr(mx, "cuda") and mx.cuda.is_available()))


def use_device(name: str) -> None:
    """Compute on ``cpu`` or ``gpu`` from now on, in this process.

    Raises:
        InputError: another name, or a GPU where there is none.
    """
    import mlx.core as mx

    if name not in ("cpu", "gpu"):
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
        InputError: another name.
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
    """Give freed memory back at once: where large tensors come one by one, few have the size of the last."""
    import mlx.core as mx

    limit = mx.set_cache_limit(0)
    try:
        yield
    finally:
        mx.set_cache_limit(limit)


def blas_problem() -> str | None:
    """One line on a slow BLAS, where MLX computes on a CPU with one; None where all is well."""
    return load_blas().problem if on_cpu() else None
