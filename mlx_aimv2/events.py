"""Progress, notices and training results, reported to the ``on_event`` callback of long-running functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .errors import Advice, Aimv2Error


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` items are done; ``total`` is None if it is not known."""

    stage: str
    done: int
    total: int | None = None
    unit: str = "images"


@dataclass(frozen=True)
class Skipped:
    """An item that was left out, and why; or ``count`` of them.

    Attributes:
        source: the item.
        reason: what is wrong with it.
        count: how many items.
        advice: what to do about it with an option, if an option helps.
    """

    source: str
    reason: str
    count: int = 1
    advice: Advice | None = None

    @classmethod
    def of(cls, source: str, error: Aimv2Error) -> Skipped:
        """An item left out because of ``error``."""
        return cls(source, error.description, advice=error.advice)


@dataclass(frozen=True)
class Notice:
    """A line that the user should see once, such as a licence; `warn` leaves out those that only tell a status."""

    message: str
    is_warning: bool = True


@dataclass(frozen=True)
class StepDone:
    """A step of a training.

    Attributes:
        step: number of this step, from 1.
        steps: in the whole training.
        epoch: number of its epoch, from 0.
        epochs: in the whole training.
        loss: mean over the images of the step.
        learning_rate: of the step.
        grad_norm: norm of the gradient before clipping.
        images: number of images in the step.
        memory_bytes: peak memory of MLX so far.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    grad_norm: float
    images: int
    memory_bytes: int


@dataclass(frozen=True)
class EpochDone:
    """The validation after an epoch of a training.

    Attributes:
        step: number of the last step, from 1.
        steps: in the whole training.
        epoch: number of the epoch, from 0.
        epochs: in the whole training.
        metrics: by name, such as "loss" and "top1".
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    metrics: Mapping[str, float]


Event = Progress | Skipped | Notice | StepDone | EpochDone
OnEvent = Callable[[Event], None]


def warn(event: Event) -> None:
    """Turn a notice into a Python warning, and ignore all other events; the default of ``on_event``."""
    if isinstance(event, Notice) and event.is_warning:
        warnings.warn(event.message, UserWarning, stacklevel=3)


def ignore(event: Event) -> None:
    """Ignore every event."""
