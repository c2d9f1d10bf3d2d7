"""Loading a fast BLAS on Linux, before MLX is imported."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import site
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .blas_choice import Candidate, fastest_first, is_installed
from .device import on_cpu
from .ranks import ranks_here

BLAS_VARIABLE = "MLX_AIMV2_BLAS"
OPENBLAS = ("libopenblas.so.0", "libopenblasp.so.0", "libopenblaso.so.0", "libopenblas.so")
BLIS = ("libblis.so.4", "libblis.so.3", "libblis.so")
MKL = ("libmkl_rt.so.3", "libmkl_rt.so.2", "libmkl_rt.so.1", "libmkl_rt.so")
# of MKL, OpenBLAS and BLIS: functions that return and set the number of threads
THREADS = (
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
    ("openblas_get_num_threads", "openblas_set_num_threads"),
    ("bli_thread_get_num_threads", "bli_thread_set_num_threads"),
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS")
STREAMS = 4  # at most
_dividing = threading.Lock()  # two threads at once would divide twice
NO_BLAS = (
    "no fast BLAS was found, so MLX runs about forty times slower on this CPU: "
    "apt-get install libopenblas0-pthread, or pip install mkl (x86-64)"
)


@dataclass(frozen=True)
class Blas:
    """The BLAS that MLX's CPU backend uses.

    Attributes:
        library: what this package has loaded; None where it has loaded none.
        problem: one line on what to do, where the BLAS is slow.
    """

    library: str | None = None
    problem: str | None = None

    def __str__(self) -> str:
        """The library, or why there is none."""
        return self.library or self.problem or "the one MLX was built with"


@dataclass(frozen=True)
class _Division:
    """The threads of the BLAS, divided among streams.

    Attributes:
        streams: their number.
        threads: of the products of one stream.
        set_threads: sets the number of threads.
    """

    streams: int = 1
    threads: int = 1
    set_threads: Callable[[int], object] = lambda threads: None


@functools.lru_cache(maxsize=1)
def load_blas() -> Blas:
    """Load an optimized BLAS for the whole process, on Linux, before MLX is imported.

    MLX's Linux wheel links the reference BLAS. A library that is loaded globally before MLX replaces its symbols.
    Of the OpenBLAS, BLIS and MKL that are installed, the fastest on this machine is loaded: they are measured once.
    The variable `MLX_AIMV2_BLAS` names a library, or turns this off with "off".

    Returns:
        The library, or the problem. Nothing is raised: a slow BLAS still computes.
    """
    choice = os.environ.get(BLAS_VARIABLE, "")
    if not sys.platform.startswith("linux") or choice.lower() in ("off", "0", "none"):
        return Blas()
    if "mlx.core" in sys.modules:
        problem = "mlx was imported before mlx_aimv2, too late for a fast BLAS: import mlx_aimv2 first"
        return Blas(problem=None if _already_linked() else problem)
    names = [choice] if choice else [name for name in _candidates() if is_installed(name)]
    for candidate in fastest_first(names):
        if _load(candidate):
            return Blas(library=candidate.name)
    return Blas(
        problem=f"{BLAS_VARIABLE}={choice} is no BLAS library that can be loaded" if choice else NO_BLAS
    )


def blas_problem() -> str | None:
    """One line on a slow BLAS, where MLX computes on a CPU with it; else None."""
    return load_blas().problem if on_cpu() else None


def divide_threads() -> int:
    """Divide the threads of the BLAS among streams, from now on, and return the number of streams.

    It is 1 if the BLAS was not loaded by this package, or has only one thread. All of the process's products get the
    divided number of threads.
    """
    with _dividing:
        return _division().streams


@contextlib.contextmanager
def joined_threads() -> Iterator[None]:
    """A context in which every product has the threads of all streams, for work that is not divided."""
    with _dividing:
        division = _division()
    division.set_threads(division.threads * division.streams)
    try:
        yield
    finally:
        division.set_threads(division.threads)


@functools.lru_cache(maxsize=1)
def _division() -> _Division:
    name = load_blas().library
    if name is None:
        return _Division()
    library = ctypes.CDLL(name)
    for getter, setter in THREADS:
        if hasattr(library, getter) and hasattr(library, setter):
            threads: int = max(1, getattr(library, getter)() // _sharers())
            # as many streams as leave the fewest threads over: 3 of 2 threads for 6 or 7
            streams = max(
                range(1, min(threads, STREAMS) + 1), key=lambda n: (n > 1, threads // n * n, n), default=1
            )
            division = _Division(streams, threads // streams, getattr(library, setter))
            division.set_threads(division.threads)
            return division
    return _Division()


def _sharers() -> int:
    """How many processes share the threads: the ranks of this machine, unless variables say how many each has."""
    return 1 if any(os.environ.get(name) for name in THREAD_VARIABLES) else ranks_here()


def _candidates() -> Iterator[str]:
    """Paths of libraries in the environment's own folders, and names that the linker knows."""
    folders = [Path(sys.prefix) / "lib"]
    if site.ENABLE_USER_SITE:
        folders.append(Path(site.getuserbase()) / "lib")
    for family in (OPENBLAS, BLIS, MKL):
        for folder in folders:
            yield from (str(folder / name) for name in family if (folder / name).is_file())
        yield from family


def _load(candidate: Candidate) -> bool:
    os.environ.update(candidate.environment)  # of variables that are not set
    try:
        return hasattr(ctypes.CDLL(candidate.name, mode=ctypes.RTLD_GLOBAL), "cblas_sgemm")
    except OSError:
        return False
    finally:
        for name in candidate.environment:
            del os.environ[name]


def _already_linked() -> bool:
    """Whether something else has loaded a fast BLAS globally, such as `LD_PRELOAD`."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return False
    return any(f"/{name}" in maps for name in ("libopenblas.so", "libopenblasp", "libblis", "libmkl_rt"))
