"""Charts as PNG, drawn with matplotlib: training curves, calibration, confusion matrix."""

from __future__ import annotations

import functools
import io
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .metrics import CalibrationBin, calibration_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

DPI = 150
PALE_BLUE, ORANGE, GREY = "#bfdbfe", "#ea580c", "#6b7280"
STYLE: dict[RcKeyType, object] = {
    "font.size": 9,
    "text.parse_math": False,  # a label may contain `$`
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": "cycler('color', ['#2563eb', '#ea580c', '#16a34a', '#9333ea', '#db2777', '#0891b2'])",
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
    "lines.linewidth": 1.5,
}
# DejaVu Sans comes with matplotlib; the others, with Chinese, Japanese, Korean or Indic letters, with systems.
FONTS = (
    "DejaVu Sans", "Arial Unicode MS", "PingFang SC", "Hiragino Sans GB", "Apple SD Gothic Neo", "Noto Sans CJK SC",
    "Noto Sans CJK JP", "WenQuanYi Micro Hei", "Noto Sans Devanagari", "Noto Sans Arabic", "Noto Sans Hebrew",
)  # fmt: skip

LABEL_LENGTH = 28  # characters of a label on an axis; longer labels are cut
MATRIX, LARGEST_CELL, GRID_CELL = 7.2, 0.8, 0.12  # inches
MOST_CLASSES = 1000  # with at least two pixels for each
# RGB of a cell on, or off, the diagonal with all images of its row
RIGHT, WRONG = (29, 78, 216), (220, 80, 10)

WIDTH, PANEL = 9.0, 2.4  # inches
PANELS = {  # title -> keys of a log, those of validation with `val_`, and the legend of each
    "Loss": {"loss": "training", "val_loss": "validation"},
    "Validation": {
        "val_top1": "top-1", "val_top5": "top-5", "val_macro_f1": "macro F1", "val_micro_f1": "micro F1",
        "val_map": "mean average precision", "val_exact_match": "all labels right",
        "val_image_to_text_recall@1": "image to text recall@1",
        "val_text_to_image_recall@1": "text to image recall@1",
        "val_recall@1": "recall@1", "val_recall@5": "recall@5", "val_recall@10": "recall@10",
    },
    "Learning rate": {"learning_rate": "learning rate"},
}  # fmt: skip
FEW = 20  # points, up to which each is marked
NOISY = 80  # points, from which a smoothed line is drawn over the loss
SMOOTHING = 0.015  # of all points, how many on either side go into a smoothed point

Curve = tuple[np.ndarray, np.ndarray]  # steps (N,), values (N,), NaN for a gap


def draw_confusion(matrix: np.ndarray, labels: Sequence[str]) -> bytes:
    """A confusion matrix: truth by row, prediction by column, darker with the share of the row.

    Args:
        matrix: (C, C) counts.
        labels: names of the C classes; a label that no installed font can write appears as its number, such as #3.

    Returns:
        The PNG file.

    Raises:
        InputError: the matrix is not square, or does not fit the labels.
    """
    counts, classes = np.nan_to_num(np.asarray(matrix, dtype=np.float64)), len(labels)
    if not classes or counts.shape != (classes, classes):
        raise InputError(
            f"a confusion matrix of {classes} labels is ({classes}, {classes}), not {counts.shape}"
        )
    cell = min(LARGEST_CELL, max(MATRIX / classes, 2 / DPI)) if classes <= MOST_CLASSES else MATRIX / classes
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # (C, C)
    full = np.where(np.eye(classes, dtype=bool)[..., None], RIGHT, WRONG)  # (C, C, 3)
    strength = shares.clip(0, 1)[..., None] ** 0.4  # a power below 1 keeps rare mistakes visible
    pixels = (255 * (1 - strength) + full * strength).round().astype(np.uint8)

    def draw(figure: Figure) -> None:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(pixels, interpolation="nearest" if classes <= MOST_CLASSES else "antialiased")
        axes.set_title("Confusion matrix (colour: share of the row)")
        axes.set(xlabel="prediction", ylabel="truth")
        places = range(0, classes, math.ceil(0.16 / cell))  # labels that would touch are left out
        names = [_writable(labels[k], f"#{k}") for k in places]
        axes.set_xticks(places, names, rotation=90)
        axes.set_yticks(places, names)
        axes.spines[:].set_visible(True)
        if cell >= GRID_CELL:
            edges = np.arange(1, classes) - 0.5
            axes.set_xticks(edges, minor=True)
            axes.set_yticks(edges, minor=True)
            axes.grid(which="minor", linewidth=0.5)
            axes.tick_params(which="minor", length=0)
        _write_counts(axes, counts, shares, cell)

    return draw_png(draw, cell * classes, cell * classes, tight=True)


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray, cell: float) -> None:
    """Write the count into every cell that has one, if the largest count fits into a cell of ``cell`` inches."""
    digits = len(f"{counts.max():.4g}")
    size = next((size for size in (9, 8, 7, 6) if (0.65 * digits + 0.5) * size / 72 <= cell), None)
    for row, column in np.argwhere(counts > 0) if size else ():
        color = "white" if shares[row, column] > 0.35 else "black"
        text = f"{counts[row, column]:.4g}"
        axes.text(column, row, text, size=size, color=color, ha="center", va="center")


def draw_calibration(bins: Sequence[CalibrationBin]) -> bytes:
    """A reliability diagram: the accuracy of the predictions of each confidence, and how many there are.

    Returns:
        The PNG file.
    """
    used = [each for each in bins if each.count]
    lower, upper = (np.array([getattr(each, edge) for each in used]) for edge in ("lower", "upper"))
    accuracy, confidence = (
        np.array([getattr(each, name) or 0.0 for each in used]) for name in ("accuracy", "confidence")
    )

    def draw(figure: Figure) -> None:
        top, bottom = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        top.set_title("Calibration", pad=24)
        top.set_title(f"ECE {calibration_error(bins):.2%}", loc="right", pad=24)
        top.bar(
            lower, accuracy, upper - lower, align="edge", color=PALE_BLUE, edgecolor="white", label="accuracy"
        )
        top.vlines((lower + upper) / 2, accuracy, confidence, ORANGE, label="distance from the confidence")
        top.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
        top.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
        top.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
        top.grid(axis="y")
        bottom.bar(
            lower, [each.count for each in used], upper - lower, align="edge", color=GREY, edgecolor="white"
        )
        bottom.set(xlabel="confidence", ylabel="predictions")
        bottom.yaxis.get_major_locator().set_params(integer=True)

    return draw_png(draw, 6.4, 6.4)


def draw_curves(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Training curves by step: losses, metrics of validation, learning rate.

    Args:
        rows: lines of `metrics.jsonl`: `step` with `loss` and `learning_rate`, or with `validation` (`loss`, `top1`
            and the like). A value that is not a finite number leaves a gap.

    Returns:
        The PNG file.
    """
    rows = [{**row, **_validation(row)} for row in rows]
    panels = {title: curves for title, keys in PANELS.items() if (curves := _curves(rows, keys))}

    def draw(figure: Figure) -> None:
        if not panels:
            figure.text(0.5, 0.5, "no measurements", color=GREY, ha="center", va="center")
            return
        column = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for axes, (title, curves) in zip(column, panels.items(), strict=True):
            axes.set_title(title)
            for label, (steps, values) in curves.items():
                _draw_curve(axes, steps, values, label, smooth=title == "Loss")
            axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
            axes.grid(axis="y")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}")
            if title == "Validation":
                axes.set_ylim(top=min(1.0, axes.get_ylim()[1]))
            elif axes.dataLim.y0 >= 0:
                axes.set_ylim(bottom=0)
        column[-1].set_xlabel("step")
        column[-1].xaxis.get_major_locator().set_params(integer=True)

    return draw_png(draw, WIDTH, PANEL * max(1, len(panels)))


def _validation(row: Mapping[str, Any]) -> dict[str, Any]:
    metrics = row.get("validation")
    return {f"val_{key}": value for key, value in metrics.items()} if isinstance(metrics, Mapping) else {}


def _curves(rows: Sequence[Mapping[str, Any]], keys: Mapping[str, str]) -> dict[str, Curve]:
    """The curves of a panel by their legend, each sorted by step."""
    curves = {}
    for key, label in keys.items():
        points = [(_finite(row.get("step")), _finite(row[key])) for row in rows if key in row]
        points = sorted((point for point in points if math.isfinite(point[0])), key=lambda point: point[0])
        if points:
            curves[label] = (np.array([step for step, _ in points]), np.array([value for _, value in points]))
    return curves


def _finite(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.nan


def _draw_curve(axes: Axes, steps: np.ndarray, values: np.ndarray, label: str, smooth: bool) -> None:
    """Draw a line with gaps at NaN, and a dot at each point where there are few or no neighbours."""
    good = np.isfinite(values)
    alone = good & ~np.append(good[1:], False) & ~np.insert(good[:-1], 0, False)
    marks = np.flatnonzero(good if good.sum() <= FEW else alone).tolist()
    (line,) = axes.plot(steps, values, label=label, clip_on=False)
    if marks:
        line.set(marker="o", markersize=4, markevery=marks)
    if smooth and len(values) >= NOISY:
        line.set(alpha=0.35, linewidth=0.8, label="_")
        axes.plot(steps, _smoothed(values), color=line.get_color(), label=label)


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Each value (N,) as the mean of those around it; NaN stays NaN."""
    good = np.isfinite(values)
    sums, counts = (np.concatenate([[0], np.cumsum(x)]) for x in (np.where(good, values, 0), good))
    reach, places = max(1, round(SMOOTHING * len(values))), np.arange(len(values))
    first, last = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    means = (sums[last] - sums[first]) / np.maximum(counts[last] - counts[first], 1)
    return np.where(good, means, math.nan)


def _writable(text: str, instead: str) -> str:
    """A label in one line, cut to `LABEL_LENGTH`; ``instead`` if no installed font has its characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if not text or not all(ord(character) in _characters() for character in text):
        return instead
    return text if len(text) <= LABEL_LENGTH else text[: LABEL_LENGTH - 1].rstrip() + "…"


@functools.cache
def _families() -> list[str]:
    """The installed fonts of `FONTS`."""
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return [family for family in FONTS if family in installed]


@functools.cache
def _characters() -> frozenset[int]:
    """The characters that the installed fonts can write."""
    from matplotlib import font_manager

    fonts = [font_manager.get_font(font_manager.findfont(family)) for family in _families()]
    return frozenset(character for font in fonts for character in font.get_charmap())


def draw_png(draw: Callable[[Figure], None], width: float, height: float, tight: bool = False) -> bytes:
    """A figure as PNG, the same whatever matplotlib settings the user has.

    Args:
        draw: fills the figure.
        width: in inches.
        height: in inches.
        tight: the size is that of the first axes, and the image grows by what is written around it.
    """
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.ERROR)  # its warnings about a font cache that cannot be written would go to stderr
    try:
        import matplotlib
        from matplotlib.figure import Figure

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE | {"font.family": _families()})
            figure = Figure((width, height), dpi=DPI, layout=None if tight else "constrained")
            draw(figure)
            buffer = io.BytesIO()
            figure.savefig(
                buffer, format="png", metadata={"Software": None}, bbox_inches="tight" if tight else None
            )
            return buffer.getvalue()
    finally:
        log.setLevel(level)
