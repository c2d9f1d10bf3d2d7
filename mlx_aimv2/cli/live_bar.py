"""The progress bar that is drawn on stderr, and lines printed above it."""

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
    """The bars that are drawn on stderr now, if any.

    By default rich replaces `sys.stdout` and prints to the terminal of the bar, even if stdout is a file or a pipe.
    These bars do not, so all other lines are printed with `print`.
    """

    def __init__(self) -> None:
        self.bars: Bars | None = None

    def show(self, bars: Bars) -> Bars:
        """Draw ``bars`` in place of the ones before."""
        self.close()
        self.bars = bars
        with contextlib.suppress(OSError):
            bars.start()
        return bars

    def close(self) -> None:
        """Remove the bars."""
        bars, self.bars = self.bars, None
        if bars is not None:
            with contextlib.suppress(OSError):  # the terminal was closed
                bars.stop()

    def print(self, line: str) -> None:
        """Print a line above the bars.

        Raises:
            OSError: it cannot be written.
        """
        if self.bars is None:
            sys.stderr.write(f"{line}\n")  # in one call: threads that decode print warnings too
            sys.stderr.flush()
        else:
            self.bars.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)

    @staticmethod
    def is_possible() -> bool:
        """Whether stderr is a terminal that can redraw a line."""
        return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in DUMB

    def shares_terminal(self) -> bool:
        """Whether bars are drawn now, on the same terminal that stdout writes to."""
        if self.bars is None or not sys.stdout.isatty():
            return False
        try:
            return os.fstat(sys.stdout.fileno()).st_rdev == os.fstat(sys.stderr.fileno()).st_rdev
        except OSError:  # a file object without a descriptor
            return True

    def make_room(self) -> None:
        """Clear the line of the bar, if stdout is a pipe: its reader may print on the same terminal."""
        if self.bars is None:
            return
        with contextlib.suppress(OSError, ValueError):
            if stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode):
                os.write(sys.stderr.fileno(), CLEAR_LINE)

    def abandon(self) -> None:
        """Show the cursor again without taking a lock, as the process ends."""
        if self.bars is not None:
            with contextlib.suppress(OSError, ValueError):
                os.write(sys.stderr.fileno(), SHOW_CURSOR)


LIVE = Live()
