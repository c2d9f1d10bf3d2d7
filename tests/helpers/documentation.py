"""The pages of the documentation, and the commands and Python blocks on them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(?:<!-- parsed only: ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`(mlx-aimv2 [^`]+)`")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: the file.
        line: of its first line in the file, from 1.
        language: behind the fence.
        text: between the fences.
        parsed_only: why its commands are parsed but not run; None for those that run.
    """

    page: Path
    line: int
    language: str
    text: str
    parsed_only: str | None

    @property
    def place(self) -> str:
        """Where it is, as `page:line`."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A line of a shell, and the output that the page shows below it."""

    line: str
    output: str
    block: Block

    @property
    def words(self) -> list[str]:
        """The words of the line without variables in front of them."""
        return list(shlex.split(self.line, comments=True))[len(self.variables) :]

    @property
    def variables(self) -> dict[str, str]:
        """The variables that the line sets in front of its command."""
        pairs = {}
        for word in shlex.split(self.line):
            if not re.match(r"[A-Z_0-9]+=", word):
                break
            name, _, pairs[name] = word.partition("=")
        return pairs


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text[: found.start(3)].count("\n") + 1, found[2], found[3], found[1])
        for found in FENCE.finditer(text)
    ]


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block: each line of `bash`, each line after `$ ` of `console`."""
    text = block.text.replace("\\\n", " ")
    if block.language == "bash":
        lines = [(line, "") for line in text.splitlines() if line and not line.startswith("#")]
    elif block.language == "console":
        lines = [part.partition("\n")[::2] for part in re.split(r"^\$ ", text, flags=re.M)[1:]]
    else:
        lines = []
    return (Command(line, output, block) for line, output in lines)


def python_blocks() -> list[Block]:
    """All Python blocks of all pages."""
    return [block for page in PAGES for block in blocks(page) if block.language == "python"]
