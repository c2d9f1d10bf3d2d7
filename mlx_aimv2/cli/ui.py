"""Lines on stderr and stdout, and how a verb ends: errors in one line, exit statuses."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import re
import sys
import textwrap
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, ParamSpec, TypeVar

from typer.models import OptionInfo

from ..errors import Advice, Aimv2Error, InputError, OutputError
from .live import LIVE
from .signals import interrupting, status_of

P = ParamSpec("P")
R = TypeVar("R")

NAME = "mlx-aimv2"
ALL_DONE, NOT_ALL_DONE, WRONG_USAGE = 0, 1, 2
USUAL_COLUMNS = 80
COMMAND = re.compile(rf"`[^`]*`|try: {NAME} .*")  # not to be broken
HELD_SPACE = "\x1f"  # a control character, which no visible text holds
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
DEBUG_VARIABLE = "MLX_AIMV2_DEBUG"


@dataclass
class Running:
    """What runs now.

    Attributes:
        options: the options of the verb, by their names in Python; empty between runs.
        debug: whether errors come with their traceback.
    """

    options: frozenset[str] = frozenset()
    debug: bool = False


RUNNING = Running()


def say(message: str) -> None:
    """Talk, on stderr: one line in a pipe; on a terminal, it wraps at words and keeps paths and commands whole.

    Where it cannot be written, the work goes on all the same.
    """
    line = f"{NAME}: {visible(message)}"
    with contextlib.suppress(OSError):
        LIVE.print(_wrapped(line, _columns()) if sys.stderr.isatty() else line)


def _columns() -> int:
    """The width of the terminal that stderr is."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        return int(columns)
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or USUAL_COLUMNS
    return USUAL_COLUMNS


def _wrapped(line: str, columns: int) -> str:
    held = COMMAND.sub(lambda command: command[0].replace(" ", HELD_SPACE), line)
    lines = textwrap.wrap(
        held, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace(HELD_SPACE, " ")


def advise(introduction: str, *commands: str) -> None:
    """Commands to go on with, on stderr; each is a whole line that can be copied.

    Args:
        introduction: what stands above them.
        commands: each without the name of the program; their arguments are quoted.
    """
    say(introduction)
    with contextlib.suppress(OSError):
        for command in commands:
            LIVE.print(f"  {NAME} {visible(command)}")


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A Python warning as one line of talk; libraries warn of odd image files so.

    Pillow's warning of many pixels is left out: --max-megapixels decides how many are too many.
    """
    if type(message).__name__ == "DecompressionBombWarning":
        return
    say(f"warning: {' '.join(str(message).split())}")


def plain(cell: str) -> str:
    """A cell of a table: what would break its lines, or order a terminal about, is escaped."""
    return visible(cell.replace("\\", "\\\\"))


def visible(text: str) -> str:
    """Control characters, of which file names may be full, as escapes."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def put(line: str) -> None:
    """One line of data, on stdout.

    Raises:
        OutputError: it cannot be written, as on a full disk.
        BrokenPipeError: its reader has gone.
    """
    try:
        if LIVE.shares_terminal():
            LIVE.print(line)
        else:
            LIVE.make_room()
            print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError.writing("stdout", error) from error


def leave(status: int) -> NoReturn:
    """End the process at once, after flushing its output; threads that still decode are not waited for."""
    LIVE.abandon()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)


@functools.cache
def options_of(function: Callable[..., object]) -> frozenset[str]:
    """The options of a verb, by their names in Python; its arguments are not among them."""
    hints = typing.get_type_hints(function, include_extras=True)
    return frozenset(
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if isinstance(_declared(hints.get(name, parameter.annotation)), OptionInfo)
    )


def _declared(hint: object) -> object:
    return getattr(hint, "__metadata__", (None,))[0]


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Turn what a verb raises into one line on stderr and an exit status."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        RUNNING.options = options_of(guarded)
        try:
            with interrupting():
                return function(*args, **kwargs)
        except KeyboardInterrupt as stop:  # may say what to do about it
            say(f"interrupted: {stop}" if stop.args else "interrupted")
            raise SystemExit(status_of(stop)) from stop
        except BrokenPipeError as error:  # the reader of our output has enough: `mlx-aimv2 embed … | head`
            raise SystemExit(NOT_ALL_DONE) from error
        except Exception as error:
            raise SystemExit(report(error)) from error

    return guarded


def report(error: Exception) -> int:
    """Say what went wrong; the exit status for it. With --debug, the traceback too."""
    if RUNNING.debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, Aimv2Error):
        say(f"error: {with_advice(error.message, error.advice)}")
        return WRONG_USAGE if isinstance(error, InputError) else NOT_ALL_DONE
    say(f"unexpected error: {type(error).__name__}: {_one_line(error)} (run again with --debug to see where)")
    return NOT_ALL_DONE


def with_advice(message: str, advice: Advice | None) -> str:
    """A message in one line, with the advice that the verb at work has the option for."""
    advised = advice.for_options(RUNNING.options) if advice else ""
    return f"{_one_line(message)}: {advised}" if advised else _one_line(message)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
