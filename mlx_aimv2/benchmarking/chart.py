"""A chart of a report as PNG: images per second and memory by batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..evaluation.charts import GREY, draw_png
from .forward import Cell
from .report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 9.0, 4.2  # inches
NEAR = 2.0  # times the best speed: up to that, the speed of decoding is drawn
MARKERS = "osD^vP"


def draw_report(report: Report) -> bytes:
    """Two panels, images per second and peak memory by batch size, with a line for each dtype and bits.

    Returns:
        The PNG file.
    """
    lines: dict[str, list[Cell]] = {}
    for cell in report.cells:
        if cell.timing is not None:
            lines.setdefault(cell.setting.weights, []).append(cell)
    sizes = sorted({cell.setting.batch_size for cells in lines.values() for cell in cells})

    def draw(figure: Figure) -> None:
        speed, memory = figure.subplots(1, 2)
        machine, (height, width) = report.machine, report.image_size
        figure.suptitle(
            f"{report.architecture.name}, {width} x {height} pixels, on {machine.device_name}",
            x=0.01,
            ha="left",
        )
        for marker, (weights, cells) in zip(MARKERS * len(lines), lines.items(), strict=False):
            batches = [cell.setting.batch_size for cell in cells]
            speed.plot(batches, [cell.images_per_second or 0 for cell in cells], marker=marker, label=weights)
            memory.plot(
                batches, [(cell.peak_bytes or 0) / 1e9 for cell in cells], marker=marker, label=weights
            )
        speed.set(title="Images per second")
        memory.set(title="Peak memory of MLX, GB")
        _draw_decoding(speed, report)
        for axes in (speed, memory):
            axes.set_xscale("log", base=2)
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.minorticks_off()
            axes.margins(y=0.15)
            axes.set_ylim(bottom=0)
            axes.set_xlabel("images in a batch")
            axes.grid(axis="y")
        if lines:
            speed.legend(loc="best")
        else:
            figure.text(0.5, 0.5, "no measurements", color=GREY, ha="center", va="center")

    return draw_png(draw, WIDTH, HEIGHT)


def _draw_decoding(axes: Axes, report: Report) -> None:
    """Draw the speed of decoding as horizontal lines, where it is near that of the model."""
    best = report.best.images_per_second if report.best else None
    for decoding in report.decodings:
        if best is not None and decoding.images_per_second <= NEAR * best:
            axes.axhline(decoding.images_per_second, color=GREY, linestyle="--", linewidth=1)
            label = f"decoding, {decoding.mode}"
            axes.text(1, decoding.images_per_second, label, transform=axes.get_yaxis_transform(), color=GREY,
                      ha="right", va="bottom")  # fmt: skip
