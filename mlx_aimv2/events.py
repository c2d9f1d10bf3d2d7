"""What long-running functions report while they work.

The engines take an ``on_event`` callback and never print; the command line renders the events.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .errors import Advice, Aimv2Error


@dataclass(frozen=True)
class Progress:
    """Work done so far: ``done`` of ``total`` items (``total`` None when it is not known)."""

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
        return cls(source, error.message, advice=error.advice)


@dataclass(frozen=True)
class Notice:
    """One line that the user should see once, such as a licence."""

    message: str


@dataclass(frozen=True)
class Metric:
    """What a training measured: after a step (its loss), or after an epoch (what validation gave).

    Attributes:
        step: steps done.
        epoch: the one it is in, from 0.
        values: after a step `loss`, `learning_rate`, `grad_norm`, how many `images` it was made of and the
            `memory_bytes` used at most so far; after an epoch the measures of validation, as `val_top1`.
        steps: of the whole training.
        epochs: of the whole training.
    """

    step: int
    epoch: int
    values: Mapping[str, float]
    steps: int = 0
    epochs: int = 0


Event = Progress | Skipped | Notice | Metric
OnEvent = Callable[[Event], None]


def warn(event: Event) -> None:
    """The callback of those who name none: what should not go unnoticed is a Python warning."""
    if isinstance(event, Notice):
        warnings.warn(event.message, UserWarning, stacklevel=3)


def ignore(event: Event) -> None:
    """The callback of those who want no events."""
