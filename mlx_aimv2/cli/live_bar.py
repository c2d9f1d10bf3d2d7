"""The live bar of the terminal: at most one at a time, with every other line printed above it."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

DUMB = ("dumb", "unknown")
CLEAR_LINE = b"\r\x1b[2K"
SHOW_CURSOR = CLEAR_LINE + b"\x1b[?25h"


class Live:
    """The bar that is drawn on stderr at the moment, if any.

    By default rich takes the place of `sys.stdout` meanwhile, and sends what is printed to the terminal of the bar,
    even if stdout is a file or a pipe. These bars leave `sys.stdout` alone, so lines are printed through here.
    """

    def __init__(self) -> None:
        self.bars: Bars | None = None

    def show(self, bars: Bars) -> Bars:
        """Draw ``bars``, in place of those there are."""
        self.close()
        self.bars = bars
        with contextlib.suppress(OSError):
            bars.start()
        return bars

    def close(self) -> None:
        """Take the bars away."""
        bars, self.bars = self.bars, None
        if bars is not None:
            with contextlib.suppress(OSError):  # the terminal was closed
                bars.stop()

    def print(self, line: str) -> None:
        """Write a line above the bars.

        Raises:
            OSError: the terminal takes no more.
        """
        if self.bars is None:
            sys.stderr.write(f"{line}\n")  # in one piece: threads that decode warn, too
            sys.stderr.flush()
        else:
            self.bars.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    @staticmethod
    def is_possible() -> bool:
        """Whether stderr is a terminal that can redraw a line."""
        return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in DUMB

    def shares_terminal(self) -> bool:
        """Whether bars are drawn on the terminal that stdout is."""
        if self.bars is None or not sys.stdout.isatty():
            return False
        try:
            return os.fstat(sys.stdout.fileno()).st_rdev == os.fstat(sys.stderr.fileno()).st_rdev
        except OSError:  # a stand-in for a terminal
            return True

    def make_room(self) -> None:
        """Clear the line of the bar for a moment: what goes into a pipe may come out on its terminal."""
        if self.bars is None:
            return
        with contextlib.suppress(OSError, ValueError):
            if stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode):
                os.write(sys.stderr.fileno(), CLEAR_LINE)

    def abandon(self) -> None:
        """Give the terminal its cursor back when the process ends at once, whoever holds a lock."""
        if self.bars is not None:
            with contextlib.suppress(OSError, ValueError):
                os.write(sys.stderr.fileno(), SHOW_CURSOR)


LIVE = Live()
