"""Signals that end a process: an ignored one stays ignored, the others end a verb as Ctrl-C does."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, kill, a closed terminal
PATIENCE_S = 2.0  # how long a further signal leaves what the first one has begun in peace


class Interrupted(KeyboardInterrupt):
    """A signal that ends the process; what tidies up after Ctrl-C tidies up after it too."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def heeded() -> list[signal.Signals]:
    """The ending signals that are not ignored, as `nohup` and a shell's background jobs ask for."""
    return [number for number in ENDING if signal.getsignal(number) not in (signal.SIG_IGN, None)]


def status_of(stop: KeyboardInterrupt) -> int:
    """The exit status of an interrupted process, as shells have it: 130 for Ctrl-C."""
    return 128 + (stop.number if isinstance(stop, Interrupted) else signal.SIGINT)


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """While this block runs, a signal that would end the process raises `Interrupted`.

    A closed terminal sends more than one; while the first is being dealt with, the others do nothing.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may have handlers
        yield
        return
    last = -math.inf

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last > PATIENCE_S:
            last = time.monotonic()
            raise Interrupted(number)

    former_handlers = {number: signal.signal(number, interrupt) for number in heeded()}
    try:
        yield
    finally:
        for number, handler in former_handlers.items():
            signal.signal(number, handler)
