"""Tables on stdout: drawn to the width of a terminal, tab-separated in a pipe."""

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
LONG_WORD, LONG_NAME, LEAST_CUT = 24, 30, 12  # the least width of a column whose content is wider
INDENT = "  "
MORE = "…"


@dataclass(frozen=True)
class Column:
    """A column of a drawn table.

    Attributes:
        header: its title.
        cells: its content.
        kind: a number is right-aligned and never wrapped; a path keeps the name of the file; text wraps at words; a
            cut column ends at the edge of the terminal.
    """

    header: str
    cells: tuple[str, ...]
    kind: Literal["number", "path", "text", "cut"]

    @property
    def full_width(self) -> int:
        """The width for the whole content."""
        return max(map(_width, (self.header, *self.cells)))

    @property
    def least_width(self) -> int:
        """The least readable width."""
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
        return max(header, min(wanted, self.full_width))


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], cut: bool = False, paths: Collection[str] = ()
) -> None:
    """Print a table: drawn on a terminal, tab-separated in a pipe.

    Columns of numbers are right-aligned. If the terminal is too narrow, every row becomes a paragraph.

    Args:
        headers: titles of the columns.
        rows: cells of each row.
        cut: whether the last column is cut at the edge of the terminal instead of wrapped.
        paths: titles of the columns with file names.
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
        console.print(_drawing(columns, widths))
    put(captured.get())


def shortened_path(path: str, width: int) -> str:
    """The end of a path in at most ``width`` cells of a terminal, from a whole folder on if possible."""
    if _width(path) <= width:
        return path
    for slash in re.finditer("/", path[1:]):
        end = f"{MORE}{path[slash.end() :]}"
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


def _longest(texts: Sequence[str]) -> int:
    return max(map(_width, texts), default=0)


def _fitted(columns: Sequence[Column], room: int) -> list[int] | None:
    """The widths of the columns in a terminal; None if their least widths do not fit."""
    widths = [column.least_width for column in columns]
    spare = room - sum(widths) - GAP * (len(columns) - 1)
    if spare < 0:
        return None
    lacking = [column.full_width - width for column, width in zip(columns, widths, strict=True)]
    for rank, number in enumerate(sorted(range(len(columns)), key=lacking.__getitem__)):
        more = min(lacking[number], spare // (len(columns) - rank))  # those that need least come first
        widths[number] += more
        spare -= more
    return widths


def _drawing(columns: Sequence[Column], widths: Sequence[int]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawing = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column, width in zip(columns, widths, strict=True):
        whole = column.kind in ("number", "cut")
        drawing.add_column(
            Text(column.header),
            width=width,
            justify="right" if column.kind == "number" else "left",
            no_wrap=whole and width >= _width(column.header),
            overflow="ellipsis" if column.kind == "cut" else "fold",
        )
    for number in range(len(columns[0].cells)):
        cells = (_cell(column, number, width) for column, width in zip(columns, widths, strict=True))
        drawing.add_row(*map(Text, cells))
    return drawing


def _cell(column: Column, number: int, width: int) -> str:
    cell = column.cells[number]
    return shortened_path(cell, width) if column.kind == "path" else cell


def _paragraph(columns: Sequence[Column], number: int, room: int) -> list[str]:
    """A row as lines: its first cell, then the other cells with their titles, as many in a line as fit."""
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
