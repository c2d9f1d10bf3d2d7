"""Messages on stderr and lines of data on stdout."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import textwrap

from ..errors import OutputError
from .live_bar import LIVE

NAME = "mlx-aimv2"
USUAL_COLUMNS = 80
COMMAND = re.compile(rf"`[^`]*`|try: {NAME} .*")  # not to be broken
HELD_SPACE = "\x1f"  # a control character, which no visible text holds
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


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
