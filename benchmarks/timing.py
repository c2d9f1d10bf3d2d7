"""Time and memory inside the process of one side. PyTorch's sides use it too, so it needs no other package."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from suite import Setup


def seconds(run: Callable[[], object]) -> float:
    """The duration of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def repeated(setup: Setup, run: Callable[[], object], most: int = 5, budget_s: float = 5.0) -> list[float]:
    """The durations of runs after a first one, which compiles and allocates.

    Args:
        setup: if it is quick, one run is measured, without warming up.
        run: must have finished its work when it returns.
        most: runs to measure.
        budget_s: no further run starts after this time; if the first one takes longer, one run is measured.
    """
    if setup.quick:
        return [seconds(run)]
    first = seconds(run)
    least, samples = (2 if first < budget_s else 1), list[float]()
    while len(samples) < least or (len(samples) < most and sum(samples) < budget_s):
        samples.append(seconds(run))
    return samples


def held_bytes() -> int:
    """The memory that this process holds now."""
    found = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True)
    return 1024 * int(found.stdout)


def peak_bytes() -> int:
    """The most memory that this process has held."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
