"""RESULTS.md: the bars, then a table for each family."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bars import BARS
from results import Results, Row
from suite import Family

HIDDEN = ("weights_bytes", "activations_bytes", "MB at ")  # how values begin that the tables leave out


def write_report(results: Results, families: Sequence[Family], path: Path, plots: dict[str, str]) -> None:
    """Write the page; ``plots`` are the names of images beside it, by family."""
    lines = ["# Results of the benchmarks", "", *_machine(results), "", *_bars(results), ""]
    for family in families:
        cases = [key for key in results.cases if key.startswith(f"{family.name}/")]
        if not cases:
            continue
        lines += [f"## {family.title}", "", f"{family.note}", ""]
        lines += [*_table(results, cases), ""]
        if family.name in plots:
            lines += [f"![{family.title}]({plots[family.name]})", ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def _machine(results: Results) -> list[str]:
    machine = results.machine
    memory = machine.get("memory_bytes")
    hardware = [machine.get("cpu"), f"{machine.get('cores')} cores", machine.get("gpu")]
    hardware.append(f"{memory / 1e9:.0f} GB" if memory else None)
    versions = ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())
    commits = sorted({case["commit"] for case in results.cases.values()})
    dates = sorted(case["date"] for case in results.cases.values())
    return [
        f"Machine: {', '.join(str(x) for x in hardware if x)}; {machine.get('platform')}.",
        f"BLAS of MLX: `{machine.get('blas')}`. Versions: {versions}.",
        f"Commits: {', '.join(commits)}. Measured from {dates[0]} to {dates[-1]}." if dates else "",
        "",
        "Made by `make bench`; the numbers are in `results.json`. Every side runs in a process of its own, in turns.",
        "A time is the median over the rounds of the median of a round; beside it the fastest and the slowest run.",
        "Peak memory is that of the whole process.",
    ]


def _bars(results: Results) -> list[str]:
    lines = ["| ratio or time | bar | measured | met? |", "|---|---|---|---|"]
    for bar in BARS:
        measured, limit = bar.measure(results), f"at {'least' if bar.is_least else 'most'} {bar.bar:g}"
        verdict = "" if measured is None else "yes" if bar.is_met(measured) else "no"
        number = "not measured" if measured is None else _ratio(measured, bar.bar)
        lines.append(f"| {bar.text} | {limit} | {number} | {verdict} |")
    return lines


def _table(results: Results, cases: list[str]) -> list[str]:
    lines = [
        "| case | side | time | fastest to slowest | images/s | first side is | peak memory | other numbers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key in cases:
        name, rows = key.partition("/")[2], results.rows(key)
        for row in rows:
            lines.append(_line(name, row, rows[0], results.cases[key]["images"]))
        lines += [f"| {name} | {side} | {why} | | | | | |" for side, why in results.problems(key).items()]
        values = results.cases[key]["sides"].items()
        for side, result in values:
            if result["rounds"] and not result["rounds"][0]["timings"]:
                numbers = {x: results.value(key, side, x) for x in result["rounds"][0]["values"]}
                lines.append(f"| {name} | {side} | | | | | | {_numbers(numbers)} |")
    return lines


def _line(name: str, row: Row, first: Row, images: int) -> str:
    against = "" if row is first else f"{first.seconds / row.seconds:.2f} times"
    peak = "" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.2f} GB"
    spread = f"{duration(row.fastest)} to {duration(row.slowest)}"
    rate = f"{images / row.seconds:.3g}" if images else ""
    cells = (name, row.side, duration(row.seconds), spread, rate, against, peak, _numbers(row.values))
    return f"| {' | '.join(cells)} |"


def _numbers(values: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in values.items() if not key.startswith(HIDDEN))


def _ratio(value: float, bar: float) -> str:
    if 0.99 < bar < 1:  # a cosine
        return f"{value:.5f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """A time with its unit."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
