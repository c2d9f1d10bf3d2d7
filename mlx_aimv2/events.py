"""What long-running functions report while they work.

The engines take an ``on_event`` callback and never print; the command line renders the events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Work done so far: ``done`` of ``total`` items (``total`` None when it is not known)."""

    stage: str
    done: int
    total: int | None = None
    unit: str = "pictures"


@dataclass(frozen=True)
class Skipped:
    """One item that was left out, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Notice:
    """One line that the user should see once, such as a licence."""

    message: str


Event = Progress | Skipped | Notice
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The callback of those who want no events."""
