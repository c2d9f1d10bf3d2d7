"""Make the images of the documentation from real runs: `python docs/make_images.py` (needs the extra `test`)."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.style import Style
from rich.text import Text

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests"))
from helpers.terminal import Terminal  # noqa: E402

from mlx_aimv2.cli.app import run  # noqa: E402

COLUMNS = 106
COMMANDS = [
    "mlx-aimv2 classify demo-output/images/0[1-4]* -l demo-output/labels.txt --template {} --top-k 2 -m demo",
    'mlx-aimv2 embed --text "two red circles" "a white diamond" --model demo',
    "mlx-aimv2 embed demo-output/images --model demo -o vectors.npz",
]
COLORS = {"brightblack": "bright_black"}


def run_on(terminal: Terminal, command: str) -> None:
    """Run a command with a terminal as stdout and stderr."""
    with contextlib.ExitStack() as stack:
        out, err = (stack.enter_context(terminal.open()) for _ in range(2))
        out.write(f"$ {command}\r\n")
        out.flush()
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        assert run(shlex.split(command)[1:]) == 0, command


def screen_text(terminal: Terminal) -> Text:
    """What the terminal shows, with its colours."""
    screen, text = terminal.screen, Text()
    for row, line in enumerate(terminal.lines):
        cells = [screen.buffer[row][column] for column in range(len(line))]
        for (color, bold), run_of_cells in itertools.groupby(cells, lambda cell: (cell.fg, cell.bold)):
            color = None if color == "default" else COLORS.get(color, color)
            text.append("".join(cell.data for cell in run_of_cells), Style(color=color, bold=bold))
        text.append("\n")
    return text


def main() -> None:
    """Write docs/images/contact-sheet.jpg and docs/images/terminal.svg."""
    os.environ.update(COLUMNS=str(COLUMNS), TERM="xterm-256color")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with contextlib.redirect_stdout(io.StringIO()):
            assert run(["demo"]) == 0
        terminal = Terminal(COLUMNS)
        for command in COMMANDS:
            run_on(terminal, command)
        terminal.close()
        with Image.open("demo-output/contact-sheet.png") as sheet:
            top = sheet.convert("RGB").crop((0, 0, sheet.width, sheet.height * 73 // 100))
            top.resize((700, 700 * top.height // top.width)).save(
                DOCS / "images" / "contact-sheet.jpg", quality=85
            )
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(screen_text(terminal), end="", highlight=False)
    svg = console.export_svg(title="mlx-aimv2")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.S)  # which names files on the network
    (DOCS / "images" / "terminal.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
