"""What `mlx-aimv2 evaluate --data` does: data and model together, numbers as tables, JSON, or files."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .classify import lines_of
from .screen import Screen
from .tables import table
from .trained import check_head_is_named, is_trained_pair
from .ui import put, say

if TYPE_CHECKING:
    from ..evaluation import Evaluation
    from ..finetune.measured import Measure
    from ..loading import AnyModel, LoadOptions
    from ..metrics import ClassMetrics
    from ..models.classifier import Classifier
    from ..predictions import Labelled
    from ..processing.processor import Processor
    from ..retrieval import RetrievalEvaluation

SPLITS = ("val", "test", "train", "all")
DATA_OPTIONS = (
    "adapter_path", "model", "split", "val_fraction", "seed", "template", "labels", "output",
    "batch_size", "any_base",
)  # fmt: skip
CLASSES, MISTAKES = 25, 5  # that a table shows; files and JSON hold more


@dataclass(frozen=True)
class Request:
    """What is to be evaluated on what, as the options of the verb say it."""

    data: Path
    adapter_path: Path | None
    model: str
    split: str | None
    val_fraction: float | None
    seed: int | None
    templates: list[str] | None
    labels: Path | None
    output: Path | None
    batch_size: int | None
    any_base: bool


def check_request(request: Request) -> None:
    """Find what is wrong without a model.

    Raises:
        InputError: a split that does not exist, templates for a model that needs none, or an adapter's option
            without an adapter.
    """
    if request.split not in (None, *SPLITS):
        raise InputError(f"split {request.split!r} is not one of {', '.join(SPLITS)}")
    if request.any_base and request.adapter_path is None:
        raise InputError("--any-base is for --adapter-path: leave it out")
    given = {"--template": request.templates, "--labels": request.labels}
    has_own = request.adapter_path is not None and not is_trained_pair(request.adapter_path)
    for name in (name for name, value in given.items() if value and has_own):
        raise InputError(f"{name} is for zero-shot labels: leave it out, or --adapter-path")
    if request.templates:
        from ..zeroshot import check_templates

        check_templates(request.templates)


def evaluate_data(
    request: Request, revision: str | None, settings: LoadOptions, json: bool, shown: Screen
) -> None:
    """Evaluate labels or captions, whichever the data holds, and bring out what was found.

    Raises:
        Aimv2Error: as data, model and evaluation refuse.
    """
    from ..evaluation import Evaluation, write_report
    from ..finetune.captions import has_captions

    evaluate = _captions if has_captions(request.data) else _labels
    evaluation = evaluate(request, revision, settings, shown)
    shown.close()
    written = write_report(request.output, evaluation) if request.output is not None else []
    if json:
        put(jsonlib.dumps(evaluation.to_dict(), indent=2))
    elif isinstance(evaluation, Evaluation):
        show(evaluation)
    else:
        show_retrieval(evaluation)
    if written:
        say(f"wrote {', '.join(path.name for path in written)} to {request.output}")


def _measure(request: Request) -> Measure:
    from ..finetune.measured import Measure

    return Measure(request.split, request.val_fraction, request.seed)


def _labels(request: Request, revision: str | None, settings: LoadOptions, shown: Screen) -> Evaluation:
    from ..evaluation import evaluate_classifier, evaluate_zero_shot
    from ..finetune.dataset import read_dataset
    from ..finetune.measured import measured
    from ..models.classifier import Classifier
    from ..models.vision import Aimv2VisionModel

    dataset, splits = measured(read_dataset, request.data, request.adapter_path, _measure(request), shown)
    examples = [(each.path, each.labels) for name in splits for each in dataset.split(name)]
    labels = dataset.labels
    if request.labels is not None:
        labels = tuple(lines_of(request.labels))
    if not (request.templates or request.labels):
        check_head_is_named(request.model, request.adapter_path, "--template or --labels")
    model, processor = _load(request, revision, settings, shown)
    if isinstance(model, Classifier):
        return evaluate_classifier(
            model,
            processor,
            examples,
            labels,
            batch_size=request.batch_size,
            multi_label=model.multi_label,
            on_event=shown,
        )
    if request.adapter_path is not None and not is_trained_pair(request.adapter_path):
        raise InputError(f"{request.adapter_path} holds no head to evaluate: it was not trained to classify")
    if isinstance(model, Aimv2VisionModel):
        check_head_is_named(request.model, request.adapter_path)
    return evaluate_zero_shot(
        model,
        processor,
        among(examples, dataset.labels, labels),
        labels,
        request.templates,
        batch_size=request.batch_size,
        on_event=shown,
    )


def among(examples: list[Labelled], known: Sequence[str], labels: Sequence[str]) -> list[Labelled]:
    """The examples with numbers of other labels, which hold all that occur; `_` and a space are the same there.

    Raises:
        InputError: a label of the data is not among them, or one of them is there twice.
    """
    numbers: dict[str, int] = {}
    for number, label in enumerate(labels):
        if numbers.setdefault(_plain(label), number) != number:
            raise InputError(f"--labels names {label!r} twice: keep one of them")
    for label in (known[number] for _, own in examples for number in own):
        if _plain(label) not in numbers:
            raise InputError(f"--labels lacks {label!r}, which the data has: add a line with it")
    return [(path, tuple(numbers[_plain(known[number])] for number in own)) for path, own in examples]


def _plain(label: str) -> str:
    return label.replace("_", " ").strip()


def _captions(
    request: Request, revision: str | None, settings: LoadOptions, shown: Screen
) -> RetrievalEvaluation:
    from ..finetune.captions import read_captions
    from ..finetune.measured import measured
    from ..models.classifier import Classifier
    from ..retrieval import evaluate_retrieval

    for name, value in (("--template", request.templates), ("--labels", request.labels)):
        if value:
            raise InputError(
                f"{name} is for labelled pictures, and {request.data} holds captions: leave it out"
            )
    dataset, splits = measured(read_captions, request.data, request.adapter_path, _measure(request), shown)
    model, processor = _load(request, revision, settings, shown)
    if isinstance(model, Classifier):
        raise InputError(
            f"{request.adapter_path} holds a head for labels, and {request.data} holds captions: leave out"
            " --adapter-path, or name one of finetune --task contrastive"
        )
    return evaluate_retrieval(
        model,
        processor,
        [(each.path, each.captions) for name in splits for each in dataset.split(name)],
        batch_size=request.batch_size,
        on_event=shown,
    )


def _load(
    request: Request, revision: str | None, settings: LoadOptions, shown: Screen
) -> tuple[AnyModel | Classifier, Processor]:
    from .. import load

    settings = dataclasses.replace(settings, any_base=request.any_base)
    return load(
        request.model, revision=revision, options=settings, on_event=shown, adapter_path=request.adapter_path
    )


def show_retrieval(evaluation: RetrievalEvaluation) -> None:
    """Two tables: the numbers, and the captions that find their picture last."""
    table(("what", "value"), evaluation.metrics.rows())
    if evaluation.mistakes:
        wrong = [
            (each.caption, each.path, each.found, f"{each.rank:,}") for each in evaluation.mistakes[:MISTAKES]
        ]
        table(("worst captions", "picture", "found instead", "rank"), wrong)


def _worst_first(found: ClassMetrics) -> tuple[bool, float]:
    """Sorts classes by F1, but those without a picture behind the others."""
    return found.support == 0, found.f1


def show(evaluation: Evaluation) -> None:
    """Three tables: the numbers, the classes (the worst, where there are many), the surest mistakes."""
    metrics = evaluation.metrics
    table(("what", "value"), metrics.rows())
    rows = metrics.class_rows()
    if len(rows) > CLASSES:
        order = sorted(range(len(rows)), key=lambda k: _worst_first(metrics.per_class[k]))
        rows = [rows[k] for k in order[:CLASSES]]
    table(("class", "precision", "recall", "F1", "pictures"), rows)
    if evaluation.mistakes:
        wrong = [
            (each.path, ", ".join(each.truth), ", ".join(each.predicted), f"{each.confidence:.2%}")
            for each in evaluation.mistakes[:MISTAKES]
        ]
        table(("surest mistakes", "truth", "prediction", "confidence"), wrong)
    if len(rows) < len(metrics.per_class):
        say(
            f"these are the {len(rows)} of {len(metrics.per_class)} classes with the least F1; --json gives all"
        )
