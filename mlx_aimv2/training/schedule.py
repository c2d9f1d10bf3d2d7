"""The number of steps of a run, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from .options import LoopOptions

EPOCHS, MOST_EPOCHS = 10, 200  # by default: at least, and at most

SCHEDULES: dict[
    str, Callable[[float], float]
] = {  # from the part of the way done, 0 to 1, to a part of the peak
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}


def learning_rate(step: int, total: int, options: LoopOptions) -> float:
    """The learning rate of step ``step``, counted from 0, of a run of ``total`` steps."""
    rising = warmup_steps(total, options.warmup)
    if step < rising:
        return options.learning_rate * (step + 1) / (rising + 1)
    return options.learning_rate * SCHEDULES[options.schedule]((step - rising) / max(1, total - rising))


def warmup_steps(total: int, warmup: float) -> int:
    """The number of steps in which the learning rate rises."""
    return round(warmup * total)


def planned_steps(options: LoopOptions, steps_per_epoch: int) -> int:
    """The number of steps of a run: as the options say, or at least ``options.least_steps``."""
    if options.iters is not None:
        return options.iters
    return (options.epochs or recommended_epochs(options.least_steps, steps_per_epoch)) * steps_per_epoch


def recommended_epochs(least_steps: int, steps_per_epoch: int) -> int:
    """The number of epochs that has at least ``least_steps`` steps, between 10 and 200."""
    return min(MOST_EPOCHS, max(EPOCHS, -(-least_steps // steps_per_epoch)))


def check_length(options: LoopOptions, step: int, epoch: int, folder: Path) -> None:
    """Check that a resumed run, after ``step`` steps and ``epoch`` epochs, has not passed its new end.

    Raises:
        InputError: the options name fewer epochs or steps than are done.
    """
    for name, wanted, done in (("iters", options.iters, step), ("epochs", options.epochs, epoch)):
        if wanted is not None and wanted < done:
            raise InputError(
                f"--resume: --{name} {wanted}: the run in {folder} has done {done:,} already: give more, or name"
                " another --adapter-path"
            )
        if wanted is not None:
            return  # iters go before epochs
