"""Charts of the results, one for each family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from results import Results, Row

COLORS = ("#2a6fbb", "#d1603d", "#5b9279", "#8e6c8a", "#c2a83e", "#7a7a7a", "#3fa7b5", "#b56576")


def draw_plots(results: Results, families: list[str], folder: Path) -> dict[str, str]:
    """Write a PNG for each family with timings.

    Returns:
        The paths, relative to the parent of ``folder``, by family.
    """
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(exist_ok=True)
    drawn = {}
    for family in families:
        cases = {
            key.partition("/")[2]: results.rows(key) for key in results.cases if key.startswith(f"{family}/")
        }
        cases = {name: rows for name, rows in cases.items() if rows}
        if not cases:
            continue
        path = folder / f"{family}.png"
        DRAWINGS.get(family, bars)(cases, path)
        drawn[family] = f"{folder.name}/{path.name}"
    return drawn


def bars(cases: dict[str, list[Row]], path: Path) -> None:
    """A panel for each case, a bar with its spread for each side."""
    from matplotlib.figure import Figure

    heights = [0.6 + 0.32 * len(rows) for rows in cases.values()]
    figure = Figure(figsize=(8, sum(heights) + 0.3), layout="constrained")
    panels = figure.subplots(len(cases), 1, squeeze=False, height_ratios=heights)[:, 0]
    sides = list(dict.fromkeys(row.side for rows in cases.values() for row in rows))
    for panel, (name, rows) in zip(panels, cases.items(), strict=True):
        factor, unit = (1000, "ms") if max(row.seconds for row in rows) < 1 else (1, "s")
        for place, row in enumerate(rows):
            middle, color = factor * row.seconds, COLORS[sides.index(row.side) % len(COLORS)]
            spread = [[middle - factor * row.fastest], [factor * row.slowest - middle]]
            panel.barh(
                place, middle, xerr=[[max(0.0, x[0])] for x in spread], color=color, height=0.7, capsize=2
            )
            panel.text(
                factor * max(row.seconds, row.slowest), place, f"  {middle:.3g}", va="center", fontsize=8
            )
        panel.set_yticks(range(len(rows)), [row.side for row in rows], fontsize=8)
        panel.invert_yaxis()
        panel.tick_params(axis="x", labelsize=8)
        panel.margins(x=0.12)
        panel.set_title(f"{name}, {unit}", loc="left", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def scaling(cases: dict[str, list[Row]], path: Path) -> None:
    """Lines over batch and patches, and bars for processes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2), layout="constrained")
    panels = figure.subplots(1, len(cases), squeeze=False)[0]
    for panel, (name, rows) in zip(panels, cases.items(), strict=True):
        labels = [row.side.rpartition(": ")[2] for row in rows]
        numbers = [int(word) for label in labels for word in label.split() if word.isdigit()]
        if len(numbers) == len(rows):
            panel.plot(numbers, [row.seconds for row in rows], marker="o", color=COLORS[0])
            panel.set_xlabel("images in a batch" if "batch" in labels[0] else "patches")
            panel.set_xlim(left=0)
        else:
            panel.bar(
                [label.replace(" of ", "\nof ") for label in labels],
                [row.seconds for row in rows],
                color=COLORS[: len(rows)],
                width=0.6,
            )
        panel.set_ylim(0, 1.1 * max(row.seconds for row in rows))
        panel.set_ylabel("seconds for an image")
        panel.set_title(name, fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def memory(cases: dict[str, list[Row]], path: Path) -> None:
    """The memory of the command over its time, for the case with the most images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panel = figure.subplots()
    for place, row in enumerate(next(iter(cases.values()))):
        kept = [mb for name, mb in row.values.items() if name.startswith("MB at ")]
        if kept:
            times = [row.seconds * x / (len(kept) - 1) for x in range(len(kept))]
            panel.plot(times, kept, marker=".", color=COLORS[place], label=row.side)
    panel.set_xlabel("seconds")
    panel.set_ylabel("memory in MB")
    panel.set_ylim(bottom=0)
    panel.set_title(next(iter(cases)), loc="left", fontsize=9)
    panel.legend(frameon=False, fontsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


DRAWINGS: dict[str, Callable[[dict[str, list[Row]], Path], None]] = {"scaling": scaling, "many": memory}
