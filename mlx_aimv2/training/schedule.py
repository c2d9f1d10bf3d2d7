"""The learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Callable

Shape = Callable[[float], float]  # from the part of the way done, 0 to 1, to the part of the peak

SCHEDULES: dict[str, Shape] = {
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}


def learning_rate(step: int, total: int, peak: float, schedule: str, warmup: float) -> float:
    """The learning rate of a step.

    Args:
        step: from 0.
        total: steps of the whole training.
        peak: the highest learning rate.
        schedule: a name in `SCHEDULES`.
        warmup: the part of all steps in which it rises from near 0 to the peak.
    """
    rising = warmup_steps(total, warmup)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    return peak * SCHEDULES[schedule]((step - rising) / max(1, total - rising))


def warmup_steps(total: int, warmup: float) -> int:
    """The steps, of so many, in which the learning rate rises."""
    return round(warmup * total)
