"""How a verb ends: errors in one line on stderr, and the exit status."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..errors import Advice, Aimv2Error, InputError
from .interrupts import interrupting, status_of
from .live_bar import LIVE
from .output import say
from .parameters import expand

ALL_DONE, NOT_ALL_DONE, WRONG_USAGE = 0, 1, 2
DEBUG_VARIABLE = "MLX_AIMV2_DEBUG"


@dataclass
class Running:
    """The verb that runs now.

    Attributes:
        options: names of its options in Python; empty if no verb runs.
        debug: whether errors come with their traceback.
    """

    options: frozenset[str] = frozenset()
    debug: bool = False


RUNNING = Running()


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Turn a function into a verb for typer.

    A parameter whose type is an options dataclass becomes an option for each field of it. What the function raises
    becomes one line on stderr and an exit status.
    """
    expansion = expand(function)

    @functools.wraps(function)
    def guarded(**values: Any) -> None:
        RUNNING.options = expansion.options
        try:
            with interrupting():
                function(**expansion.collected(values))
        except KeyboardInterrupt as stop:  # may carry a note
            say(f"interrupted: {stop}" if stop.args else "interrupted")
            raise SystemExit(status_of(stop)) from stop
        except BrokenPipeError as error:  # the reader has closed the pipe: `mlx-aimv2 embed … | head`
            raise SystemExit(NOT_ALL_DONE) from error
        except Exception as error:
            raise SystemExit(report(error)) from error

    guarded.__signature__ = expansion.signature  # type: ignore[attr-defined]
    guarded.__annotations__ = {}  # the signature has them
    return guarded


@contextlib.contextmanager
def interruption_note(path: Path, note: str) -> Iterator[None]:
    """Add a note to the message about an interruption of this block, if ``path`` exists then."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if path.exists():
            stop.args = (note,)
        raise


def report(error: Exception) -> int:
    """Print an error, with --debug also its traceback; return the exit status."""
    if RUNNING.debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, Aimv2Error):
        say(f"error: {with_advice(error.description, error.advice)}")
        return WRONG_USAGE if isinstance(error, InputError) else NOT_ALL_DONE
    say(f"unexpected error: {type(error).__name__}: {_one_line(error)} (run again with --debug to see where)")
    return NOT_ALL_DONE


def with_advice(message: str, advice: Advice | None) -> str:
    """A message in one line, with the advice for the verb that runs now."""
    advised = advice.for_options(RUNNING.options) if advice else ""
    return f"{_one_line(message)}: {advised}" if advised else _one_line(message)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def leave(status: int, flush_stdout: bool = True) -> NoReturn:
    """End the process at once, without waiting for threads that still decode.

    Args:
        status: the exit status.
        flush_stdout: print what is buffered. False where another thread may be blocked in writing to stdout: a
            flush would wait for it.
    """
    LIVE.abandon()
    if flush_stdout:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)
