"""Which of two epochs is better: one rule for the best epoch, for patience and for a sweep."""

from __future__ import annotations

import math

from ..finetuning.tasks import METRICS

Rank = tuple[float, float]


def rank(metric: str, value: float, loss: float) -> Rank:
    """How good an epoch is; of two ranks the larger is the better epoch.

    The metric decides, and where two are equal the loss. A value that is NaN is worse than every number.

    Args:
        metric: a name in `tasks.METRICS`, which says whether more or less of it is better.
        value: of the metric.
        loss: of the same validation.
    """
    signed = value if METRICS[metric] else -value
    return _comparable(signed), _comparable(-loss)


def _comparable(value: float) -> float:
    return -math.inf if math.isnan(value) else value
