"""Classification metrics in numpy: accuracy, F1, average precision, calibration, confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..inference.probabilities import log_softmax, sigmoid

BINS = 15  # of the reliability diagram, as in Guo et al. 2017
TOP = 5
THRESHOLD = 0.5  # the least probability of a predicted label, where there may be several
NUMBERS = (  # name in `to_dict`, name in a table, whether it is a fraction
    ("top1", "top-1", True),
    ("top5", f"top-{TOP}", True),
    ("map", "mean average precision", True),
    ("micro_f1", "micro F1", True),
    ("macro_f1", "macro F1", True),
    ("exact_match", "all labels right", True),
    ("ece", "calibration error (ECE)", True),
    ("nll", "negative log likelihood", False),
)


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class, as fractions; a fraction of nothing is 0.

    Attributes:
        label: the name of the class.
        precision: correct predictions of the class / predictions of the class.
        recall: correct predictions of the class / images of the class.
        f1: the harmonic mean of precision and recall.
        support: images of the class.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class CalibrationBin:
    """The predictions with a confidence in (lower, upper].

    Attributes:
        lower: the lower bound.
        upper: the upper bound.
        count: the number of predictions.
        confidence: their mean confidence; None if there are none.
        accuracy: the fraction of them that is correct; None if there are none.
    """

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Metrics:
    """Metrics of predictions, as fractions; None for those that do not apply.

    Attributes:
        count: the number of images.
        labels: names of the classes.
        multi_label: whether an image may have any number of labels.
        macro_f1: mean F1 of the classes that occur, in the truth or among the predictions.
        ece: expected calibration error (Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3).
        nll: mean negative log likelihood of the truth, in nats; with several labels, over all labels.
        per_class: precision, recall and F1 of every class.
        calibration: the bins of the reliability diagram; with several labels, of all probabilities.
        top1: fraction of images whose most probable label is correct.
        top5: fraction of images whose label is among the five most probable.
        confusion: (C, C) counts, truth by row, prediction by column.
        map: mean over the labels that occur of the area under the precision-recall curve.
        micro_f1: F1 of the decisions about all labels together.
        exact_match: fraction of images with all labels correct.
    """

    count: int
    labels: tuple[str, ...]
    multi_label: bool
    macro_f1: float
    ece: float
    nll: float
    per_class: tuple[ClassMetrics, ...]
    calibration: tuple[CalibrationBin, ...]
    top1: float | None = None
    top5: float | None = None
    confusion: np.ndarray | None = None
    map: float | None = None
    micro_f1: float | None = None
    exact_match: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The metrics that apply, as plain values for JSON."""
        numbers = {name: getattr(self, name) for name, _, _ in NUMBERS}
        values: dict[str, Any] = {
            "images": self.count,
            "multi_label": self.multi_label,
            **{name: number for name, number in numbers.items() if number is not None},
            "labels": list(self.labels),
            "per_class": [dict(vars(each)) for each in self.per_class],
            "calibration": [dict(vars(each)) for each in self.calibration],
        }
        return values if self.confusion is None else {**values, "confusion": self.confusion.tolist()}

    def rows(self) -> list[tuple[str, str]]:
        """A table of the metrics over all classes: name and value."""
        rows = [("images", f"{self.count:,}"), ("classes", f"{len(self.labels):,}")]
        for name, title, is_fraction in NUMBERS:
            number = getattr(self, name)
            if number is None or (name == "top5" and len(self.labels) <= TOP):  # always 1 for few classes
                continue
            rows.append((title, f"{number:.2%}" if is_fraction else f"{number:.4f}"))
        return rows

    def class_rows(self) -> list[tuple[str, str, str, str, str]]:
        """A table of the classes: label, precision, recall, F1, support."""
        return [
            (each.label, f"{each.precision:.2%}", f"{each.recall:.2%}", f"{each.f1:.2%}", f"{each.support:,}")
            for each in self.per_class
        ]


def measure(logits: np.ndarray, targets: np.ndarray, labels: Sequence[str]) -> Metrics:
    """Metrics of predictions with one label for each image.

    Args:
        logits: (N, C), or log probabilities.
        targets: (N,) indices of the true classes.
        labels: names of the C classes.

    Raises:
        InputError: shapes do not fit, there are no images, a logit is NaN, or a target is not an index of a class.
    """
    logits = _checked(logits, labels)
    targets = np.asarray(targets)
    count, classes = logits.shape
    if targets.shape != (count,) or not np.issubdtype(targets.dtype, np.integer):
        raise InputError(f"targets must be ({count},) integers, not {targets.shape} {targets.dtype}")
    if (outside := targets[(targets < 0) | (targets >= classes)]).size:
        raise InputError(f"a target is {outside[0]}, and there are {classes} classes")
    log_probabilities = log_softmax(logits)
    order = np.argsort(-logits, axis=1, kind="stable")[:, : min(TOP, classes)]
    predicted = order[:, 0]
    right = predicted == targets
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (targets, predicted), 1)
    hits = confusion.diagonal()
    per_class = _per_class(labels, hits, confusion.sum(axis=0), confusion.sum(axis=1))
    confidence = np.exp(log_probabilities[np.arange(count), predicted])
    calibration = calibrate(confidence, right)
    return Metrics(
        count=count,
        labels=tuple(labels),
        multi_label=False,
        macro_f1=_mean_f1(per_class, confusion.sum(axis=0) + confusion.sum(axis=1)),
        ece=calibration_error(calibration),
        nll=float(-log_probabilities[np.arange(count), targets].mean()),
        per_class=per_class,
        calibration=calibration,
        top1=float(right.mean()),
        top5=float((order == targets[:, None]).any(axis=1).mean()),
        confusion=confusion,
    )


def measure_multi_label(logits: np.ndarray, targets: np.ndarray, labels: Sequence[str]) -> Metrics:
    """Metrics of predictions with any number of labels for each image, predicted from a probability of 0.5 on.

    Args:
        logits: (N, C), each label independent of the others.
        targets: (N, C), 1 where an image has a label, else 0.
        labels: names of the C classes.

    Raises:
        InputError: shapes do not fit, there are no images, a logit is NaN, or a target is neither 0 nor 1.
    """
    logits = _checked(logits, labels)
    targets = np.asarray(targets)
    if targets.shape != logits.shape or not np.isin(targets, (0, 1)).all():
        raise InputError(
            f"targets must be {logits.shape} zeros and ones, not {targets.shape} {targets.dtype}"
        )
    truth = targets.astype(bool)
    probabilities = sigmoid(logits)
    predicted = probabilities >= THRESHOLD
    hits, called, support = (x.sum(axis=0) for x in (predicted & truth, predicted, truth))
    per_class = _per_class(labels, hits, called, support)
    calibration = calibrate(probabilities.ravel(), truth.ravel())
    occurs = np.flatnonzero(support)
    precisions = [average_precision(logits[:, k], truth[:, k]) for k in occurs]
    return Metrics(
        count=len(logits),
        labels=tuple(labels),
        multi_label=True,
        macro_f1=_mean_f1(per_class, called + support),
        ece=calibration_error(calibration),
        nll=float(np.logaddexp(0, np.where(truth, -logits, logits)).mean()),
        per_class=per_class,
        calibration=calibration,
        map=float(np.mean(precisions)) if precisions else 0.0,
        micro_f1=_ratio(2 * hits.sum(), called.sum() + support.sum()),
        exact_match=float((predicted == truth).all(axis=1).mean()),
    )


def calibrate(confidence: np.ndarray, right: np.ndarray) -> tuple[CalibrationBin, ...]:
    """The reliability diagram of confidences (N,) from 0 to 1 and their correctness (N,): 15 bins of equal width."""
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins = []
    for k in range(BINS):
        inside = place == k
        count = int(inside.sum())
        means = [float(x[inside].mean()) if count else None for x in (confidence, right)]
        bins.append(CalibrationBin(k / BINS, (k + 1) / BINS, count, *means))
    return tuple(bins)


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """The mean distance between confidence and accuracy, weighted by the predictions in each bin."""
    total = sum(each.count for each in bins)
    gaps = (each.count * abs((each.accuracy or 0) - (each.confidence or 0)) for each in bins)
    return float(sum(gaps) / max(1, total))


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """The area under the precision-recall curve of scores (N,), without interpolation; equal scores are one step."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of each run of equal scores
    hits, predicted = np.cumsum(truth[order])[last], np.flatnonzero(last) + 1
    recall, precision = hits / hits[-1], hits / predicted
    return float((np.diff(recall, prepend=0) * precision).sum())


def _checked(logits: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    logits = np.asarray(logits)
    if logits.ndim != 2 or logits.shape[1] != len(labels):
        raise InputError(f"logits must be (N, {len(labels)}), one for each label, not {logits.shape}")
    if not logits.size:
        raise InputError("there are no predictions to measure")
    if np.isnan(logits).any():
        raise InputError("the logits hold NaN: leave those images out")
    return logits


def _per_class(
    labels: Sequence[str], hits: np.ndarray, called: np.ndarray, support: np.ndarray
) -> tuple[ClassMetrics, ...]:
    return tuple(
        ClassMetrics(label, _ratio(h, c), _ratio(h, s), _ratio(2 * h, c + s), int(s))
        for label, h, c, s in zip(labels, hits, called, support, strict=True)
    )


def _mean_f1(per_class: Sequence[ClassMetrics], occurrences: np.ndarray) -> float:
    f1 = [each.f1 for each, often in zip(per_class, occurrences, strict=True) if often]
    return float(np.mean(f1)) if f1 else 0.0


def _ratio(part: np.integer[Any], whole: np.integer[Any]) -> float:
    return float(part / whole) if whole else 0.0
