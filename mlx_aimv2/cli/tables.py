"""Tables on stdout: drawn to fit a terminal, tab-separated in a pipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .live_bar import LIVE
from .output import plain, put, visible

if TYPE_CHECKING:
    from rich.table import Table

NUMBER = re.compile(
    r"[+-]?\d[\d.,]*(e[+-]?\d+)?( ?[%×]| [a-zA-Z]{1,2}(/s)?| bytes|/s)?|\d+ to \d+|-|–|nan|inf|"
)
GAP = 2  # spaces between columns
LONG_WORD, LONG_NAME, LEAST_CUT = (
    24,
    30,
    12,
)  # what a column has room for at least, where its content is longer
INDENT = "  "
MORE = "…"


@dataclass(frozen=True)
class Column:
    """A column of a drawn table.

    Attributes:
        header: its title.
        cells: its content.
        kind: numbers stand right and are never broken; paths keep the name of the file; text wraps at words; a cut
            column ends where the terminal does.
    """

    header: str
    cells: tuple[str, ...]
    kind: Literal["number", "path", "text", "cut"]

    @property
    def most(self) -> int:
        """The width that holds everything."""
        return max(map(_width, (self.header, *self.cells)))

    @property
    def least(self) -> int:
        """The width below which it could not be read."""
        header = _longest(self.header.split())
        if self.kind == "number":
            return max(header, _longest(self.cells))
        if self.kind == "path":
            names = _longest([cell.rstrip("/").rpartition("/")[2] for cell in self.cells])
            wanted = min(names, LONG_NAME) + len(f"{MORE}/")
        elif self.kind == "cut":
            wanted = LEAST_CUT
        else:
            wanted = min(_longest([word for cell in self.cells for word in cell.split()]), LONG_WORD)
        return max(header, min(wanted, self.most))


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], cut: bool = False, paths: Collection[str] = ()
) -> None:
    """A table on stdout: drawn on a terminal, tab-separated in a pipe.

    A column of nothing but numbers stands right. Where a terminal is too narrow for a table, every row becomes a
    paragraph.

    Args:
        headers: the titles of the columns.
        rows: the cells.
        cut: whether the last column is cut where the terminal ends; else it goes on in the next line.
        paths: the titles of the columns that hold file names.
    """
    if not sys.stdout.isatty():
        put("\t".join(headers))
        for row in rows:
            put("\t".join(map(plain, row)))
        return
    from rich.console import Console

    LIVE.close()
    columns = []
    for number, header in enumerate(headers):
        cells = tuple(visible(row[number]) for row in rows)
        if header in paths:
            columns.append(Column(header, cells, "path"))
        elif cut and number == len(headers) - 1:
            columns.append(Column(header, cells, "cut"))
        else:
            is_number = any(cells) and all(map(NUMBER.fullmatch, cells))
            columns.append(Column(header, cells, "number" if is_number else "text"))
    console = Console(highlight=False)
    widths = _fitted(columns, console.width)
    if widths is None:
        for number in range(len(rows)):
            put("\n".join(_paragraph(columns, number, console.width)))
        put("")
        return
    with console.capture() as captured:
        console.print(_drawn(columns, widths))
    put(captured.get())


def shortened(path: str, width: int) -> str:
    """A path in at most ``width`` cells of a terminal: its end, from a folder on if possible."""
    if _width(path) <= width:
        return path
    for place in (found.start() for found in re.finditer("/", path[1:])):
        end = f"{MORE}{path[place + 1 :]}"
        if _width(end) <= width and end.rstrip("/") != MORE:
            return end
    name = path.rstrip("/").rpartition("/")[2]
    start = name[: max(0, width // 2)]
    while _width(start) > width // 2:
        start = start[:-1]
    end = name[len(start) :]
    while end and _width(start) + 1 + _width(end) > width:
        end = end[1:]
    return f"{start}{MORE}{end}"


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _longest(words: Sequence[str]) -> int:
    return max(map(_width, words), default=0)


def _fitted(columns: Sequence[Column], room: int) -> list[int] | None:
    """The widths of the columns in a terminal; None if there is not even the least room."""
    widths = [column.least for column in columns]
    spare = room - sum(widths) - GAP * (len(columns) - 1)
    if spare < 0:
        return None
    lacking = [column.most - width for column, width in zip(columns, widths, strict=True)]
    for rank, number in enumerate(sorted(range(len(columns)), key=lacking.__getitem__)):
        given = min(lacking[number], spare // (len(columns) - rank))  # what lacks little gets all of it
        widths[number] += given
        spare -= given
    return widths


def _drawn(columns: Sequence[Column], widths: Sequence[int]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        whole = column.kind in ("number", "cut")
        drawn.add_column(
            Text(column.header),
            width=width,
            justify="right" if column.kind == "number" else "left",
            no_wrap=whole and width >= _width(column.header),
            overflow="ellipsis" if column.kind == "cut" else "fold",
        )
    for number in range(len(columns[0].cells)):
        cells = (_cell(column, number, width) for column, width in zip(columns, widths, strict=True))
        drawn.add_row(*map(Text, cells))
    return drawn


def _cell(column: Column, number: int, width: int) -> str:
    cell = column.cells[number]
    return shortened(cell, width) if column.kind == "path" else cell


def _paragraph(columns: Sequence[Column], number: int, room: int) -> list[str]:
    """A row as its first cell, and below it each other title with its cell, as many in a line as fit."""
    first = _cell(columns[0], number, room)
    lines = [first] if columns[0].kind == "path" else _wrapped(first, room, "")
    start = len(lines)
    for column in columns[1:]:
        if not column.cells[number]:
            continue
        left = room - len(INDENT) - _width(column.header) - 1
        entry = f"{column.header} {_cell(column, number, max(left, LEAST_CUT))}"
        joined = f"{lines[-1]}{' ' * GAP}{entry}"
        if len(lines) > start and _width(joined) <= room:
            lines[-1] = joined
        else:
            lines += _wrapped(entry, room)
    return lines


def _wrapped(text: str, room: int, indent: str = INDENT) -> list[str]:
    from rich.console import Console
    from rich.text import Text

    wrapped = Text(text).wrap(Console(width=room), max(1, room - len(indent)))
    return [f"{indent}{line.plain.rstrip()}" for line in wrapped]
