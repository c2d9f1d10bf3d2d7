"""What `mlx-aimv2 evaluate --data` does: data and model together, numbers as tables, JSON, or files."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .ui import Screen, put, say, table

if TYPE_CHECKING:
    from ..evaluation import Evaluation, Labelled
    from ..finetune.dataset import Dataset
    from ..loading import LoadOptions

SPLITS = ("val", "test", "train")
VAL_FRACTION, SEED = 0.2, 0  # where nothing was trained
ALL = "all"
DATA_OPTIONS = (
    "adapter_path", "model", "split", "val_fraction", "seed", "template", "output", "batch_size",
    "any_base",
)  # fmt: skip
CLASSES, MISTAKES = 25, 5  # that a table shows; files and JSON hold more


@dataclass(frozen=True)
class Request:
    """What is to be evaluated on what, as the options of the verb say it."""

    data: Path
    adapter_path: Path | None
    model: str
    split: str
    val_fraction: float | None
    seed: int | None
    templates: list[str] | None
    output: Path | None
    batch_size: int | None
    any_base: bool


def check_request(request: Request) -> None:
    """Find what is wrong without a model.

    Raises:
        InputError: a split that does not exist, or templates for a model that needs none.
    """
    if request.split not in (*SPLITS, ALL):
        raise InputError(f"split {request.split!r} is not one of {', '.join((*SPLITS, ALL))}")
    if request.any_base and request.adapter_path is None:
        raise InputError("--any-base is for --adapter-path: leave it out")
    if request.templates and request.adapter_path is not None:
        raise InputError("--template is for zero-shot labels: leave it out, or --adapter-path")
    if request.templates:
        from ..zeroshot import check_templates

        check_templates(request.templates)


def evaluate_data(
    request: Request, revision: str | None, settings: LoadOptions, json: bool, shown: Screen
) -> None:
    """Evaluate, and bring out what was found.

    Raises:
        Aimv2Error: as data, model and evaluation refuse.
    """
    from ..evaluation import write_report
    from ..finetune.dataset import read_dataset

    val_fraction, seed = held_out(request)
    dataset = read_dataset(request.data, val_fraction=val_fraction, seed=seed)
    examples = examples_of(dataset, request.split)
    evaluation = _run(request, dataset, examples, revision, settings, shown)
    shown.close()
    written = write_report(request.output, evaluation) if request.output is not None else []
    if json:
        put(jsonlib.dumps(evaluation.to_dict(), indent=2))
    else:
        show(evaluation)
    if written:
        say(f"wrote {', '.join(path.name for path in written)} to {request.output}")


def held_out(request: Request) -> tuple[float, int]:
    """The part that is the validation split, and what chooses it: as given, as it was in training, or as usual.

    Raises:
        ConfigError: the record that training left is damaged.
    """
    from ..checkpoints.files import read_json
    from ..finetune.running import SPLITS as RECORD

    path = None if request.adapter_path is None else request.adapter_path.expanduser() / RECORD
    record = read_json(path) if path is not None and path.is_file() else {}
    given = {"val_fraction": request.val_fraction, "seed": request.seed}
    usual = {"val_fraction": VAL_FRACTION, "seed": SEED}
    chosen: list[Any] = [
        next(x[name] for x in (given, record, usual) if x.get(name) is not None)
        for name in ("val_fraction", "seed")
    ]
    return chosen[0], chosen[1]


def examples_of(dataset: Dataset, split: str) -> list[Labelled]:
    """The pictures of a split, or of all of them.

    Raises:
        InputError: it holds none.
    """
    counts = {name: len(dataset.split(name)) for name in SPLITS}
    names = SPLITS if split == ALL else (split,)
    examples = [(each.path, each.labels) for name in names for each in dataset.split(name)]
    if not examples:
        others = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
        raise InputError(
            f"the data has no pictures in the split {split}, only in {others}: choose with --split"
        )
    return examples


def _run(
    request: Request,
    dataset: Dataset,
    examples: list[Labelled],
    revision: str | None,
    settings: LoadOptions,
    shown: Screen,
) -> Evaluation:
    from .. import load
    from ..evaluation import evaluate_classifier, evaluate_zero_shot
    from ..models.classifier import Classifier

    if request.adapter_path is None:
        pair, processor = load(request.model, revision=revision, options=settings, on_event=shown)
        return evaluate_zero_shot(
            pair,
            processor,
            examples,
            dataset.labels,
            request.templates,
            batch_size=request.batch_size,
            on_event=shown,
        )
    settings = dataclasses.replace(settings, any_base=request.any_base)
    model, processor = load(
        request.model, revision=revision, options=settings, on_event=shown, adapter_path=request.adapter_path
    )
    if not isinstance(model, Classifier):
        raise InputError(f"{request.adapter_path} holds no head to evaluate: it was not trained to classify")
    return evaluate_classifier(
        model,
        processor,
        examples,
        dataset.labels,
        batch_size=request.batch_size,
        multi_label=model.multi_label,
        on_event=shown,
    )


def show(evaluation: Evaluation) -> None:
    """Three tables: the numbers, the classes (the worst, where there are many), the surest mistakes."""
    metrics = evaluation.metrics
    table(("what", "value"), metrics.rows())
    rows = metrics.class_rows()
    if len(rows) > CLASSES:
        worst = sorted(range(len(rows)), key=lambda k: metrics.per_class[k].f1)[:CLASSES]
        rows = [rows[k] for k in worst]
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
