"""Predictions of an evaluation: the most probable labels of each image, with their scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..inference.probabilities import log_softmax, sigmoid
from .metrics import THRESHOLD, TOP

Labelled = tuple[str, tuple[int, ...]]  # the path of an image, and the indices of its labels
SEPARATOR = ";"  # between labels in a cell, as in tables of labelled images


@dataclass(frozen=True)
class Prediction:
    """The prediction for an image.

    Attributes:
        path: of the image.
        truth: its labels.
        predicted: the predicted labels.
        ranked: the most probable labels with their scores, best first.
    """

    path: str
    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    ranked: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "path": self.path,
            "truth": list(self.truth),
            "predicted": list(self.predicted),
            "score": self.ranked[0][1],
            "predictions": [{"label": label, "score": score} for label, score in self.ranked],
        }

    def rows(self) -> list[list[str | float]]:
        """A table with one row, in the order of `Predictions.columns`."""
        cells = [self.path, *(SEPARATOR.join(labels) for labels in (self.truth, self.predicted))]
        return [[*cells, self.ranked[0][1], *(cell for pair in self.ranked for cell in pair)]]


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[Prediction]):
    """The predictions for all images, in the order of the images; each is made on access.

    Attributes:
        examples: the images with the indices of their labels.
        labels: names of the C labels.
        best: (N, K) indices of the most probable labels, best first; labels of equal probability keep their order.
        scores: (N, K) float32 probabilities of these labels.
        chosen: (N, C) whether a label is predicted, where there may be several; None: the most probable is.
    """

    examples: Sequence[Labelled] = ()
    labels: tuple[str, ...] = ()
    best: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int32))
    scores: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    chosen: np.ndarray | None = None

    @classmethod
    def from_logits(
        cls, examples: Sequence[Labelled], logits: np.ndarray, labels: tuple[str, ...], multi_label: bool
    ) -> Predictions:
        """The five most probable labels of each image, or all if there are fewer, from logits (N, C)."""
        best = np.argsort(-logits, axis=1, kind="stable")[:, : min(TOP, len(labels))].astype(np.int32)
        probabilities = sigmoid(logits) if multi_label else np.exp(log_softmax(logits))
        scores = np.take_along_axis(probabilities, best, axis=1).astype(np.float32)
        return cls(examples, labels, best, scores, probabilities >= THRESHOLD if multi_label else None)

    @property
    def columns(self) -> dict[str, type]:
        """The columns of a table, with the type of their cells."""
        ranks = range(1, self.best.shape[1] + 1)
        pairs = {f"{name}_{k}": kind for k in ranks for name, kind in (("label", str), ("score", float))}
        return {"path": str, "truth": str, "predicted": str, "score": float, **pairs}

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> Prediction:  # type: ignore[override]  # no slices
        path, truth = self.examples[number]
        chosen = self.best[number, :1] if self.chosen is None else np.flatnonzero(self.chosen[number])
        pairs = zip(self.best[number], self.scores[number], strict=True)
        return Prediction(
            path,
            tuple(self.labels[k] for k in truth),
            tuple(self.labels[k] for k in chosen),
            tuple((self.labels[k], float(score)) for k, score in pairs),
        )

    def __iter__(self) -> Iterator[Prediction]:
        return (self[number] for number in range(len(self)))
