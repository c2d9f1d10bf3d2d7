"""The help of the command and of its verbs: plain text in sections that fits narrow terminals too."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup

WIDEST, NARROW = 100, 60  # columns: no line is longer; below, what an option does stands under its name
LONGEST_NAME, GAP = 30, 2  # of an option that has its text beside it; before and after it
TYPE = re.compile(r" <(?:list\[)?(\w+)[^>]*>$")  # as newer versions of typer name the type of a value
TYPES = {"str": "TEXT", "int": "INTEGER", "float": "NUMBER", "path": "PATH"}


class VerbHelp(TyperCommand):
    """A verb whose options are listed under the titles of their panels."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write all of the help."""
        formatter.width = _columns()
        super().format_help(ctx, formatter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the line `Usage:` after the name of the verb."""
        return ["[OPTIONS]", *_arguments(self.get_params(ctx))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options."""
        _write_parameters(self.get_params(ctx), ctx, formatter)


class GroupHelp(TyperGroup):
    """The command itself, whose verbs are listed with whole sentences."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write all of the help."""
        formatter.width = _columns()
        super().format_help(ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs, and the options of all of them."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [
            (name, " ".join((command.help or "").split("\n\n")[0].split()))
            for name, command in commands
            if command
        ]
        _write(formatter, "Commands", rows)
        _write_parameters(self.get_params(ctx), ctx, formatter)


def _columns() -> int:
    return min(shutil.get_terminal_size().columns or WIDEST, WIDEST)  # a terminal may not know its width


def _arguments(parameters: Iterable[Any]) -> list[str]:
    arguments = [one for one in parameters if isinstance(one, TyperArgument)]
    names = [(one.metavar or str(one.name).upper(), one.required) for one in arguments]
    return [name if required else f"[{name}]" for name, required in names]


def _write_parameters(parameters: Iterable[Any], ctx: Any, formatter: Any) -> None:
    sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
    for parameter in parameters:
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        if isinstance(parameter, TyperArgument):
            name = parameter.metavar or str(parameter.name).upper()
            sections["Arguments"].append((name, record[1]))
        else:
            title = getattr(parameter, "rich_help_panel", None) or "Options"
            sections.setdefault(title, []).append((_named(record[0]), record[1]))
    for title, rows in sections.items():
        _write(formatter, title, rows)


def _named(option: str) -> str:
    """An option's names, with the type of its value as a word."""
    return TYPE.sub(lambda found: f" {TYPES.get(found[1], found[1].upper())}", option)


def _write(formatter: Any, title: str, rows: list[tuple[str, str]]) -> None:
    """A section: a name and what it stands for, beside each other where there is room."""
    if not rows:
        return
    most = LONGEST_NAME if formatter.width >= NARROW else GAP
    indent = GAP + min(most, max(len(name) for name, _ in rows)) + GAP
    formatter.write(f"\n{title}\n")
    for name, text in rows:
        text = text.replace("\\[", "[").replace("  [", " [").replace("[x>=", "[at least ")
        lines = textwrap.wrap(text, max(20, formatter.width - indent), break_on_hyphens=False)
        beside = len(name) + 2 * GAP <= indent
        start = f"{'':{GAP}}{name}".ljust(indent) if beside else f"{'':{GAP}}{name}\n{'':{indent}}"
        formatter.write(start + f"\n{'':{indent}}".join(lines) + "\n")
