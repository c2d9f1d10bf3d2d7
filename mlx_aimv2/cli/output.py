"""Messages on stderr and lines of data on stdout."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import textwrap
from pathlib import Path

from ..backend.ranks import launched
from ..errors import BackendError, OutputError
from .live_bar import LIVE

NAME = "mlx-aimv2"
USUAL_COLUMNS = 80
COMMAND = re.compile(rf"`[^`]*`|try: {NAME} .*")  # stays on one line
UNBROKEN_SPACE = "\x1f"  # a control character: `visible` removes it from texts
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def say(message: str) -> None:
    """Print a message on stderr, if it can be written; one of several ranks says which it is.

    In a pipe it is one line. On a terminal it wraps at words; paths and commands stay whole.
    """
    _print(f"{_rank()}{message}")


def say_once(message: str) -> None:
    """Print a message as `say` does, which all ranks of a command would print alike."""
    if _rank() in ("", "rank 0: "):
        _print(message)


def _rank() -> str:
    try:
        ranks = launched()
    except BackendError:  # a verb that uses ranks reports it
        return ""
    return f"rank {ranks.number}: " if ranks else ""


def _print(message: str) -> None:
    line = f"{NAME}: {visible(message)}"
    with contextlib.suppress(OSError):
        LIVE.print(_wrapped(line, _columns()) if sys.stderr.isatty() else line)


def _columns() -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        return int(columns)
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or USUAL_COLUMNS
    return USUAL_COLUMNS


def _wrapped(line: str, columns: int) -> str:
    line = COMMAND.sub(lambda command: command[0].replace(" ", UNBROKEN_SPACE), line)
    lines = textwrap.wrap(
        line, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines).replace(UNBROKEN_SPACE, " ")


def advise(introduction: str, *commands: str) -> None:
    """Print commands to try next on stderr, each on a line of its own to copy.

    Args:
        introduction: the line above them.
        commands: without the name of the program; with quoted arguments.
    """
    say(introduction)
    with contextlib.suppress(OSError):
        for command in commands:
            LIVE.print(f"  {NAME} {visible(command)}")


def show_warning(
    message: Warning | str, category: object = None, filename: str = "", *_: object, **__: object
) -> None:
    """Print a Python warning in one line; replaces `warnings.showwarning`.

    Pillow's warnings are left out: they name no image, and an image that cannot be read is an error with its name.
    """
    if Path(filename).parent.name == "PIL":
        return
    say(f"warning: {' '.join(str(message).split())}")


def plain(cell: str) -> str:
    """Text for a cell of a tab-separated table: control characters and backslashes escaped."""
    return visible(cell.replace("\\", "\\\\"))


def visible(text: str) -> str:
    """Text with its control characters escaped; file names may contain them."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def put(line: str) -> None:
    """Print a line of data on stdout.

    Raises:
        OutputError: it cannot be written, as on a full disk.
        BrokenPipeError: the reader has closed the pipe.
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
