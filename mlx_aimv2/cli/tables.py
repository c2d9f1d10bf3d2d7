"""Tables on stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .live import LIVE
from .ui import plain, put, visible


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], cut: bool = False) -> None:
    """A table on stdout: drawn on a terminal, tab-separated in a pipe.

    With ``cut``, the last column is cut where the terminal ends; else it goes on in the next line.
    """
    if not sys.stdout.isatty():
        put("\t".join(headers))
        for row in rows:
            put("\t".join(map(plain, row)))
        return
    LIVE.close()
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD)
    for header in headers[:-1]:
        drawn.add_column(header, overflow="fold")
    drawn.add_column(headers[-1], no_wrap=cut, overflow="ellipsis" if cut else "fold")
    for row in rows:
        drawn.add_row(*(Text(visible(cell)) for cell in row))
    Console().print(drawn)
