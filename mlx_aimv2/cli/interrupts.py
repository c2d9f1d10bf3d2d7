"""Signals that end the process: Ctrl-C, kill and a closed terminal interrupt a verb in the same way."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, kill, a closed terminal
PATIENCE_S = 2.0  # during this time after a signal, further signals do nothing


class Interrupted(KeyboardInterrupt):
    """A signal that ends the process."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def handled_signals() -> list[signal.Signals]:
    """The signals of `ENDING` that the process does not ignore; `nohup` and shells let it ignore some."""
    return [number for number in ENDING if signal.getsignal(number) not in (signal.SIG_IGN, None)]


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Let the signals of `ENDING` end the process in this block, also while MLX does not return to Python."""
    if threading.current_thread() is not threading.main_thread():  # other threads cannot set handlers
        yield
        return
    former_handlers = {number: signal.signal(number, signal.SIG_DFL) for number in handled_signals()}
    try:
        yield
    finally:
        for number, handler in former_handlers.items():
            signal.signal(number, handler)


def status_of(stop: KeyboardInterrupt) -> int:
    """The exit status of an interrupted process, by the convention of shells: 130 for Ctrl-C."""
    return 128 + (stop.number if isinstance(stop, Interrupted) else signal.SIGINT)


@contextlib.contextmanager
def interrupting() -> Iterator[None]:
    """Raise `Interrupted` in this block for a signal that would end the process.

    A closed terminal sends several signals; after the first, the others do nothing for `PATIENCE_S`.
    """
    if threading.current_thread() is not threading.main_thread():  # other threads cannot set handlers
        yield
        return
    last = -math.inf

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last > PATIENCE_S:
            last = time.monotonic()
            raise Interrupted(number)

    former_handlers = {number: signal.signal(number, interrupt) for number in handled_signals()}
    try:
        yield
    finally:
        for number, handler in former_handlers.items():
            signal.signal(number, handler)
