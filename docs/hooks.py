"""MkDocs hooks: what pages show of the code (commands, tables of options) and of the results of the benchmarks."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer.main

PLACE = "<!-- commands -->"
FIELDS = re.compile(r"<!-- fields: (\w+) -->")
# of the benchmarks: all, the ratios, or the chart of a family
RESULTS = re.compile(r"<!-- results(: \w+)? -->")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TYPES = {"str": "TEXT", "int": "INTEGER", "float": "NUMBER"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks on the pages."""
    markdown = markdown.replace(PLACE, command_pages()) if PLACE in markdown else markdown
    markdown = FIELDS.sub(lambda found: field_table(found[1]), markdown)
    return RESULTS.sub(lambda found: results((found[1] or "").removeprefix(": ")), markdown)


def on_files(files: Any, config: Any) -> Any:
    """Add the charts of the benchmarks, which lie beside their results."""
    from mkdocs.structure.files import File

    for path in sorted((BENCHMARKS / "plots").glob("*.png")):
        files.append(File.generated(config, f"plots/{path.name}", abs_src_path=str(path)))
    return files


def results(part: str, folder: Path = BENCHMARKS) -> str:
    """All results in Markdown for "", the machine and the ratios for "ratios", or the chart of a family."""
    chart = folder / "plots" / f"{part}.png"
    if part not in ("", "ratios"):
        return f"![{part}](plots/{chart.name})" if chart.is_file() else ""
    if not (folder / "RESULTS.md").is_file():
        return "*Not measured yet: `make bench` measures.*"
    text = (folder / "RESULTS.md").read_text(encoding="utf-8").partition("\n")[2]  # without the title
    return text.partition("\n## ")[0] if part else text


def command_pages() -> str:
    """A section for each command, in Markdown."""
    from mlx_aimv2.cli.app import app

    group: Any = typer.main.get_command(app)
    context = group.make_context("mlx-aimv2", [], resilient_parsing=True)
    return "\n".join(_section(name, group.commands[name], context) for name in group.list_commands(context))


def field_table(name: str) -> str:
    """The fields of a public dataclass of options with their types, defaults and help texts, in Markdown."""
    import mlx_aimv2

    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join(rows + _field_rows(getattr(mlx_aimv2, name)))


def _field_rows(options: Any, prefix: str = "") -> list[str]:
    rows = []
    for field in dataclasses.fields(options):
        nested, text = field.default_factory, _cell(field.metadata["help"])
        is_nested = nested is not dataclasses.MISSING
        default = f"{nested.__name__}()" if is_nested else repr(field.default)
        rows.append(f"| `{prefix}{field.name}` | `{field.type}` | `{default}` | {text} |")
        rows += _field_rows(nested, f"{prefix}{field.name}.") if is_nested else []
    return rows


def _section(name: str, command: Any, parent: Any) -> str:
    context = command.context_class(command, parent=parent, info_name=name)
    usage = " ".join(["mlx-aimv2", name, *command.collect_usage_pieces(context)])
    text = [f"## {name}\n", f"```text\n{usage}\n```\n", f"{_escaped(command.help or '')}\n"]
    for title, rows in _panels(command.get_params(context), context).items():
        text.append(f"| {title} | |\n|---|---|")
        text += [f"| {_names(names)} | {_cell(help_text)} |" for names, help_text in rows]
        text.append("")
    return "\n".join(text)


def _panels(parameters: Iterable[Any], context: Any) -> dict[str, list[tuple[str, str]]]:
    """The names and help texts of parameters, under the titles that `--help` has for them."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in parameters:
        record = parameter.get_help_record(context)
        if record is None:
            continue
        is_argument = parameter.param_type_name == "argument"
        title = "Arguments" if is_argument else getattr(parameter, "rich_help_panel", None) or "Options"
        name = parameter.metavar or parameter.name.upper() if is_argument else record[0]
        panels.setdefault(title, []).append((name, record[1]))
    return panels


def _names(text: str) -> str:
    """The names of a parameter as code: `-m`, `--model TEXT`."""
    text = re.sub(
        r" <(?:list\[)?(\w+)[^>]*>$", lambda found: f" {TYPES.get(found[1], found[1].upper())}", text
    )
    return ", ".join(f"`{part}`" for part in re.split(r", | / ", text))


def _cell(text: str) -> str:
    return _escaped(text.replace("\\[", "[")).replace("|", "\\|").replace("\n", " ")


def _escaped(text: str) -> str:
    """Help texts as Markdown: what is in backquotes stays code, the rest has no markup."""
    parts = text.split("`")
    return "`".join(part if number % 2 else re.sub(r"([*_\[\]<>])", r"\\\1", part)
                    for number, part in enumerate(parts))  # fmt: skip
