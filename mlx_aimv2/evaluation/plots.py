"""Images of how a training went and how good its predictions are, drawn with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from .canvas import GRID, INK, MUTED, PAPER, SCALE, TEXT, TITLE, Axes, Canvas, Color, length, number, span
from .metrics import CalibrationBin, calibration_error

BLUE, ORANGE = (37, 99, 235), (234, 88, 12)
COLORS: tuple[Color, ...] = (BLUE, ORANGE, (22, 163, 74), (147, 51, 234), (219, 39, 119), (8, 145, 178))
RIGHT, WRONG = (29, 78, 216), (220, 80, 10)  # a cell on, or off, the diagonal that holds its whole row
MARGIN = 24

MATRIX = 720  # pixels on a side, about
SMALLEST, LARGEST, WITH_GAPS = 2, 64, 12  # a cell
LABEL_WIDTH = 200  # longer labels are cut
MOST_CLASSES = 1000  # drawn one by one

WIDTH, PANEL, GAP, LEFT = 900, 210, 64, 84  # of the curves
LOSSES = {"loss": "training", "val_loss": "validation"}
SHARES = {
    "top1": "top-1", "top5": "top-5", "macro_f1": "macro F1", "micro_f1": "micro F1",
    "map": "mean average precision", "exact_match": "all labels right",
    "image_to_text_recall@1": "image to text recall@1", "text_to_image_recall@1": "text to image recall@1",
    "recall@1": "recall@1", "recall@5": "recall@5", "recall@10": "recall@10",
}  # fmt: skip
RATES = {"learning_rate": "learning rate"}
PANELS = (  # title, the names of what is drawn, whether the axis begins at zero
    ("Loss", LOSSES, True),
    (
        "Validation",
        {prefix + name: words for name, words in SHARES.items() for prefix in ("val_", "")},
        False,
    ),
    ("Learning rate", RATES, True),
)
NOISY = 80  # points from which on a smoothed line is drawn over them
SMOOTHING = 0.015  # of all points, how many to either side go into a smoothed one


def draw_confusion(matrix: np.ndarray, labels: Sequence[str]) -> Image.Image:
    """What was taken for what: truth by row, prediction by column, darker the larger its share of the row.

    Args:
        matrix: (C, C) counts.
        labels: names of the C classes; one that no font at hand can write is numbered instead.

    Raises:
        InputError: the matrix is not square, or does not fit the labels.
    """
    counts, classes = np.nan_to_num(np.asarray(matrix, dtype=np.float64)), len(labels)
    if not classes or counts.shape != (classes, classes):
        raise InputError(
            f"a confusion matrix of {classes} labels is ({classes}, {classes}), not {counts.shape}"
        )
    cell = min(LARGEST, max(SMALLEST, MATRIX // classes)) if classes <= MOST_CLASSES else MATRIX / classes
    side, every = cell * classes, max(1, math.ceil((TEXT + 2) / cell))  # labels that would touch are left out
    named = [(k, labels[k], f"#{k}") for k in range(0, classes, every)]
    gutter = 10 + max(length(label, TEXT, LABEL_WIDTH, instead) for _, label, instead in named)
    left, top = MARGIN + gutter, MARGIN + 56
    canvas = Canvas(max(left + side + MARGIN, 420), top + side + gutter + MARGIN)
    canvas.text((MARGIN, MARGIN), "Confusion matrix", size=TITLE)
    canvas.text(
        (MARGIN, MARGIN + 22),
        "rows: the truth, columns: the prediction; darker: more of the row",
        color=MUTED,
    )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # (C, C)
    _cells(canvas, shares, left, top, side)
    for k, label, instead in named:
        middle = cell * (k + 0.5)
        canvas.text((left - 8, top + middle), label, "rm", width=LABEL_WIDTH, instead=instead)
        canvas.upward((left + middle, top + side + 8), label, LABEL_WIDTH, instead)
    _gaps(canvas, classes, left, top, cell)
    _write_counts(canvas, counts, shares, left, top, cell)
    return canvas.finish()


def _cells(canvas: Canvas, shares: np.ndarray, left: float, top: float, side: float) -> None:
    """The heat: blue on the diagonal, orange off it; a power below one shows rare mistakes too."""
    on_diagonal = np.eye(len(shares), dtype=bool)[..., None]
    deep = np.where(on_diagonal, np.array(RIGHT), np.array(WRONG))  # (C, C, 3)
    strength = np.clip(shares, 0, 1)[..., None] ** 0.4
    pixels = np.array(PAPER) * (1 - strength) + deep * strength
    filling = Image.Resampling.NEAREST if len(shares) <= MOST_CLASSES else Image.Resampling.BOX
    edge = round(side * SCALE)
    heat = Image.fromarray(pixels.round().astype(np.uint8)).resize((edge, edge), filling)
    canvas.image.paste(heat, (round(left * SCALE), round(top * SCALE)))


def _gaps(canvas: Canvas, classes: int, left: float, top: float, cell: float) -> None:
    """Lines between the cells where those are large enough, and around them all."""
    side = cell * classes
    for k in range(classes + 1) if cell >= WITH_GAPS else (0, classes):
        color = MUTED if k in (0, classes) else GRID
        canvas.line([(left, top + k * cell), (left + side, top + k * cell)], color, 0.5)
        canvas.line([(left + k * cell, top), (left + k * cell, top + side)], color, 0.5)


def _write_counts(
    canvas: Canvas, counts: np.ndarray, shares: np.ndarray, left: float, top: float, cell: float
) -> None:
    """The count in every cell that has one, if all of them have room."""
    size = next(
        (size for size in (TEXT, TEXT - 2, TEXT - 4) if length(number(counts.max()), size) + 4 <= cell), 0
    )
    if not size or cell < size + 4:
        return
    for row, column in np.argwhere(counts > 0):
        color = PAPER if shares[row, column] > 0.35 else INK
        at = (left + cell * (column + 0.5), top + cell * (row + 0.5))
        canvas.text(at, number(counts[row, column]), "mm", size=size, color=color)


@dataclass(frozen=True)
class Series:
    """One line of a panel: what it is called, and its points (step, value)."""

    words: str
    points: list[tuple[float, float]]


def draw_curves(rows: Iterable[Mapping[str, Any]]) -> Image.Image:
    """How a training went, by step: its loss, what validation found, the learning rate.

    Args:
        rows: lines of `metrics.jsonl`: `step` with `loss` and `learning_rate`, or with what `validation` gave
            (`loss`, `top1` and the like). What is not a finite number leaves a gap.
    """
    rows = [{**row, **_validation(row)} for row in rows]
    panels = [(title, found, zero) for title, names, zero in PANELS if (found := _series(rows, names))]
    canvas = Canvas(WIDTH, MARGIN + max(1, len(panels)) * (PANEL + GAP) + 12)
    if not panels:
        canvas.text((WIDTH / 2, MARGIN + PANEL / 2), "nothing was measured", "mm", color=MUTED)
    steps = [x for _, found, _ in panels for series in found for x, _ in series.points]
    first, last = (min(steps), max(steps)) if steps else (0.0, 1.0)
    steps_range = (first, last) if last > first else (first - 1, last + 1)
    for k, (title, found, zero) in enumerate(panels):
        top = MARGIN + 30 + k * (PANEL + GAP)
        heights = span([y for series in found for _, y in series.points], zero)
        if title == "Validation":
            heights = (max(0.0, heights[0]), min(1.0, heights[1])) if heights[0] < 1 else heights
        axes = Axes(canvas, LEFT, top, WIDTH - MARGIN, top + PANEL - 30, steps_range, heights)
        axes.frame(title, "step" if k == len(panels) - 1 else "", whole_x=True)
        _legend(axes, found)
        for series, color in zip(found, COLORS, strict=False):
            _draw_series(axes, series, color, smooth=title == "Loss")
    return canvas.finish()


def _validation(row: Mapping[str, Any]) -> dict[str, Any]:
    found = row.get("validation")
    return {f"val_{name}": value for name, value in found.items()} if isinstance(found, Mapping) else {}


def _series(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[Series]:
    """The lines of a panel, those of one name in one."""
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        step = _value(row.get("step"))
        for name, words in names.items():
            if name in row and math.isfinite(step):
                found.setdefault(words, []).append((step, _value(row[name])))
    order = list(dict.fromkeys(names.values()))
    return [
        Series(words, sorted(found[words], key=lambda point: point[0])) for words in order if words in found
    ]


def _value(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _draw_series(axes: Axes, series: Series, color: Color, smooth: bool) -> None:
    if not smooth or len(series.points) < NOISY:
        axes.curve(series.points, color)
        return
    pale: Color = tuple(round(0.35 * c + 0.65 * p) for c, p in zip(color, PAPER, strict=True))  # type: ignore[assignment]
    axes.curve(series.points, pale, 1)
    axes.curve(_smooth(series.points), color)


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Every point as the mean of those around it; gaps stay gaps."""
    values = np.array([y for _, y in points])
    good = np.isfinite(values)
    sums, counts = (np.concatenate([[0], np.cumsum(x)]) for x in (np.where(good, values, 0), good))
    reach = max(1, round(SMOOTHING * len(points)))
    at = np.arange(len(points))
    first, last = np.maximum(at - reach, 0), np.minimum(at + reach + 1, len(points))
    means = (sums[last] - sums[first]) / np.maximum(counts[last] - counts[first], 1)
    return [
        (x, float(mean) if ok else math.nan) for (x, _), mean, ok in zip(points, means, good, strict=True)
    ]


def _legend(axes: Axes, found: Sequence[Series]) -> None:
    """The names of the lines, right-aligned beside the title."""
    x = axes.right
    for series, color in reversed(list(zip(found, COLORS, strict=False))):
        axes.canvas.text((x, axes.top - 16), series.words, "rm")
        x -= length(series.words, TEXT) + 8
        axes.canvas.line([(x - 18, axes.top - 16), (x, axes.top - 16)], color, 3)
        x -= 18 + 16


def draw_calibration(bins: Sequence[CalibrationBin]) -> Image.Image:
    """The reliability diagram: how often predictions of a confidence are right, and how many there are of each."""
    canvas = Canvas(560, 640)
    left, right = LEFT, 560 - MARGIN
    axes = Axes(canvas, left, 92, right, 440, (0.0, 1.0), (0.0, 1.0))
    axes.frame("")
    canvas.text((left, 28), "Calibration", size=TITLE)
    canvas.text((right, 28), f"ECE {calibration_error(bins):.2%}", "rm")
    canvas.text((left, 54), "blue: share that is right", color=BLUE)  # above the bars, never on them
    canvas.text((left, 74), "orange: distance from the confidence", color=ORANGE)
    for each in bins:
        if not each.count or each.accuracy is None or each.confidence is None:
            continue
        x0, y1 = axes.place(each.lower, each.accuracy)
        x1, y0 = axes.place(each.upper, 0)
        canvas.box(x0 + 1, y1, x1 - 1, y0, (191, 219, 254))
        canvas.line([(x0 + 1, y1), (x1 - 1, y1)], BLUE, 3)
        middle = (x0 + x1) / 2
        canvas.line([(middle, y1), (middle, axes.place(0, each.confidence)[1])], ORANGE, 2)
    for k in range(0, 100, 2):
        canvas.line([axes.place(k / 100, k / 100), axes.place((k + 1) / 100, (k + 1) / 100)], MUTED, 1)
    most = max([each.count for each in bins], default=0)
    counts = Axes(canvas, left, 508, right, 580, (0.0, 1.0), (0.0, max(1.0, most * 1.05)))
    counts.frame("Predictions", "confidence")
    for each in bins:
        x0, y1 = counts.place(each.lower, each.count)
        x1, y0 = counts.place(each.upper, 0)
        if each.count:
            canvas.box(x0 + 1, min(y1, y0 - 1), x1 - 1, y0, MUTED)
    return canvas.finish()
