"""The layout of `--help`: sections of plain text that fit narrow terminals too."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup

WIDEST, NARROW = 100, 60  # columns of the longest line; in a narrower terminal, help stands under the option
LONGEST_NAME, GAP = 30, 2  # columns of an option with its help beside it; spaces around it
TYPE = re.compile(r" <(?:list\[)?(\w+)[^>]*>$")  # the type of a value in newer versions of typer
TYPES = {"str": "TEXT", "int": "INTEGER", "float": "NUMBER", "path": "PATH"}


class VerbHelp(TyperCommand):
    """A verb that lists its options under the titles of their panels."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.width = _columns()
        super().format_help(ctx, formatter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the name of the verb in the line `Usage:`."""
        return ["[OPTIONS]", *_arguments(self.get_params(ctx))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options."""
        _write_parameters(self.get_params(ctx), ctx, formatter)


class GroupHelp(TyperGroup):
    """The command itself, which lists its verbs with whole sentences."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.width = _columns()
        super().format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs, and the options of the command."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, " ".join((command.help or "").split("\n\n")[0].split()))
            for name, command in commands
            if command
        ]
        _write(formatter, "Commands", rows)
        _write_parameters(self.get_params(ctx), ctx, formatter)


def _columns() -> int:
    return min(shutil.get_terminal_size().columns or WIDEST, WIDEST)  # 0 if unknown


def _arguments(parameters: Iterable[Any]) -> list[str]:
    arguments = [parameter for parameter in parameters if isinstance(parameter, TyperArgument)]
    return [_argument(each) if each.required else f"[{_argument(each)}]" for each in arguments]


def _argument(parameter: Any) -> str:
    return parameter.metavar or str(parameter.name).upper()


def _write_parameters(parameters: Iterable[Any], ctx: Any, formatter: Any) -> None:
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        if isinstance(parameter, TyperArgument):
            sections["Arguments"].append((_argument(parameter), record[1]))
        else:
            title = getattr(parameter, "rich_help_panel", None) or "Options"
            name = TYPE.sub(lambda kind: f" {TYPES.get(kind[1], kind[1].upper())}", record[0])
            sections.setdefault(title, []).append((name, record[1]))
    for title, rows in sections.items():
        _write(formatter, title, rows)


def _write(formatter: Any, title: str, rows: list[tuple[str, str]]) -> None:
    """Write a section of names and texts, beside each other if there is room."""
    if not rows:
        return
    most = LONGEST_NAME if formatter.width >= NARROW else GAP
    indent = GAP + min(most, max(len(name) for name, _ in rows)) + GAP
    formatter.write(f"\n{title}\n")
    for name, text in rows:
        text = text.replace("\\[", "[").replace("  [", " [")
        lines = textwrap.wrap(text, max(20, formatter.width - indent), break_on_hyphens=False)
        beside = len(name) + 2 * GAP <= indent
        start = f"{'':{GAP}}{name}".ljust(indent) if beside else f"{'':{GAP}}{name}\n{'':{indent}}"
        formatter.write(start + f"\n{'':{indent}}".join(lines) + "\n")
