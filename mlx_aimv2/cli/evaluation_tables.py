"""Tables of an evaluation: metrics, classes, and mistakes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .output import say
from .tables import table

if TYPE_CHECKING:
    from ..evaluation.labels import Evaluation
    from ..evaluation.metrics import ClassMetrics
    from ..evaluation.retrieval import RetrievalEvaluation

CLASSES, MISTAKES = 25, 5  # rows of a table; files and JSON have all


def show_retrieval(evaluation: RetrievalEvaluation) -> None:
    """Two tables: the numbers, and the captions that find their image last."""
    table(("what", "value"), evaluation.metrics.rows())
    if evaluation.mistakes:
        wrong = [
            (each.caption, each.path, each.found, f"{each.rank:,}") for each in evaluation.mistakes[:MISTAKES]
        ]
        table(("worst captions", "image", "found instead", "rank"), wrong, paths=("image", "found instead"))


def _worst_first(found: ClassMetrics) -> tuple[bool, float]:
    """Sorts classes by F1, but those without an image behind the others."""
    return found.support == 0, found.f1


def show_labels(evaluation: Evaluation) -> None:
    """Three tables: the numbers, the classes (the worst, where there are many), the surest mistakes."""
    metrics = evaluation.metrics
    table(("what", "value"), metrics.rows())
    rows = metrics.class_rows()
    if len(rows) > CLASSES:
        order = sorted(range(len(rows)), key=lambda k: _worst_first(metrics.per_class[k]))
        rows = [rows[k] for k in order[:CLASSES]]
    table(("class", "precision", "recall", "F1", "images"), rows)
    if evaluation.mistakes:
        wrong = [
            (each.path, ", ".join(each.truth), ", ".join(each.predicted), f"{each.confidence:.2%}")
            for each in evaluation.mistakes[:MISTAKES]
        ]
        table(("surest mistakes", "truth", "prediction", "confidence"), wrong, paths=("surest mistakes",))
    if len(rows) < len(metrics.per_class):
        say(
            f"these are the {len(rows)} of {len(metrics.per_class)} classes with the least F1; --json gives all"
        )
