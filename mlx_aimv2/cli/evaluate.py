"""`mlx-aimv2 evaluate`: how good a model is on images with labels or captions."""

from __future__ import annotations

from .evaluate_options import EvaluateOptions
from .guard import NOT_ALL_DONE, verb
from .model_options import ExactModelOptions
from .screen import screen


@verb
def evaluate(options: EvaluateOptions, model: ExactModelOptions) -> None:
    """Measure a model on images with labels or captions."""
    from ..backend.device import require_mlx

    require_mlx()
    options.check(model)
    from .evaluation_run import evaluate_data

    named = model.with_base()
    with screen() as events:
        evaluate_data(options, named, events)
    if events.skipped:
        raise SystemExit(NOT_ALL_DONE)
