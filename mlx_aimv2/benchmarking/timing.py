"""Durations of repeated work: run it once to warm up, then again and again within a budget."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Durations of the same work.

    Attributes:
        seconds: of each run, in their order, without the one that warms up; at least one.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        """The shortest run in seconds."""
        return min(self.seconds)

    @property
    def slowest(self) -> float:
        """The longest run in seconds."""
        return max(self.seconds)


def measure(run: Callable[[], object], budget_s: float = 2.0, least: int = 3, most: int = 1000) -> Timing:
    """Run something until its time is used up.

    Args:
        run: must finish its work before it returns: MLX's arrays are lazy until `mx.eval`.
        budget_s: time for all runs after the first one; the run that exceeds it is the last.
        least: runs to measure even if they take longer, at least 1.
        most: runs after which the rest of the time is not used.

    Returns:
        The durations of the runs after the first one.
    """
    run()  # compiles and allocates
    last = time.perf_counter()
    end = last + budget_s
    seconds: list[float] = []
    while len(seconds) < least or (last < end and len(seconds) < most):
        run()
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    return Timing(tuple(seconds))
