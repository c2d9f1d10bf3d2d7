"""What `mlx-aimv2 evaluate --data` does: data and model together, numbers as tables, JSON, or files."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..datasets.options import Columns, Reading
from ..errors import InputError
from ..inference.label_files import Choice, choose, read_labels
from .output import put, say
from .screen import Screen
from .tables import table
from .trained_folders import check_head_is_named, has_head, is_trained_pair

if TYPE_CHECKING:
    from ..datasets.held_out import SplitChoice
    from ..evaluation.labels import Evaluation
    from ..evaluation.metrics import ClassMetrics
    from ..evaluation.predictions import Labelled
    from ..evaluation.retrieval import RetrievalEvaluation
    from ..loading import AnyModel, LoadOptions
    from ..models.classifier import Classifier
    from ..processing.processor import Processor

SPLITS = ("val", "test", "train", "all")
DATA_OPTIONS = (
    "adapter_path", "model", "split", "val_fraction", "seed", "template", "labels", "output",
    "predictions", "force", "batch_size", "any_base", "image_column", "label_column", "caption_column", "image_root",
)  # fmt: skip
STDOUT = "-"  # the evaluation's own JSON, in place of a file
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
    labels: list[str] | None
    output: Path | None
    predictions: str | None
    force: bool
    json: bool
    batch_size: int | None
    any_base: bool
    exclude: tuple[str, ...] = ()
    columns: Columns = dataclasses.field(default_factory=Columns)
    image_root: str | None = None

    @property
    def reading(self) -> Reading:
        """How the data is read; what training and evaluation write is no part of it."""
        written = (self.adapter_path, self.output)
        avoid = tuple(str(path.expanduser()) for path in written if path is not None)
        return Reading(self.exclude, avoid, self.columns, self.image_root)


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
    for name in (name for name, value in given.items() if value and has_head(request.adapter_path)):
        raise InputError(f"{name} is for zero-shot labels: leave it out, or --adapter-path")
    if request.templates:
        from ..inference.zero_shot import check_templates

        check_templates(request.templates)
    if request.labels:
        read_labels(request.labels)
    _check_predictions(request)


def _check_predictions(request: Request) -> None:
    if request.force and request.predictions in (None, STDOUT) and request.output is None:
        raise InputError("--force is for --output FOLDER and --predictions FILE: leave it out")
    if request.output is not None:
        from ..evaluation.report import check_report

        check_report(request.output, request.force)
    if request.predictions == STDOUT and not request.json and request.output is None:
        raise InputError(
            "--predictions - puts them into the evaluation's JSON: ask for it with --json or --output FOLDER, or name"
            " a file"
        )
    if request.predictions not in (None, STDOUT):
        from ..vectors.record_files import check_record_file

        check_record_file(Path(request.predictions).expanduser(), force=request.force)


def evaluate_data(request: Request, revision: str | None, settings: LoadOptions, shown: Screen) -> None:
    """Evaluate labels or captions, whichever the data holds, and bring out what was found.

    Raises:
        Aimv2Error: as data, model and evaluation refuse.
    """
    from ..datasets.captioned import has_captions
    from ..evaluation.labels import Evaluation
    from ..evaluation.report import write_report

    evaluate = _captions if has_captions(request.data, request.reading) else _labels
    evaluation = evaluate(request, revision, settings, shown)
    shown.close()
    if isinstance(evaluation, Evaluation):
        evaluation = _with_predictions(evaluation, request)
    written = write_report(request.output, evaluation) if request.output is not None else []
    if request.json:
        put(jsonlib.dumps(evaluation.to_dict(), indent=2))
    elif isinstance(evaluation, Evaluation):
        show(evaluation)
    else:
        show_retrieval(evaluation)
    if written:
        say(f"wrote {', '.join(path.name for path in written)} to {request.output}")


def _with_predictions(evaluation: Evaluation, request: Request) -> Evaluation:
    """The evaluation with its predictions in its JSON, or with their file written, as was asked for.

    Raises:
        OutputError: the file cannot be written.
    """
    if request.predictions == STDOUT:
        return dataclasses.replace(evaluation, lists_predictions=True)
    if request.predictions is not None:
        from ..vectors.record_files import write_records

        path = Path(request.predictions).expanduser()
        write_records(path, evaluation.predictions, evaluation.predictions.columns, request.force)
        say(f"wrote {len(evaluation.predictions):,} predictions to {path}")
    return evaluation


def _measure(request: Request) -> SplitChoice:
    from ..datasets.held_out import SplitChoice

    return SplitChoice(request.split, request.val_fraction, request.seed, request.reading)


def _labels(request: Request, revision: str | None, settings: LoadOptions, shown: Screen) -> Evaluation:
    from ..datasets.held_out import choose_splits
    from ..datasets.labelled import read_dataset
    from ..evaluation.labels import evaluate_labels
    from ..models.classifier import Classifier
    from ..models.vision import Aimv2VisionModel

    dataset, splits = choose_splits(
        read_dataset, request.data, request.adapter_path, _measure(request), shown
    )
    examples = [(each.path, each.labels) for name in splits for each in dataset.split(name)]
    choice = None
    if request.labels:
        choice = choose(read_labels(request.labels, set(dataset.labels)), dataset.labels)
        examples = among(examples, dataset.labels, choice)
    if not (request.templates or request.labels):
        check_head_is_named(request.model, request.adapter_path, "--template or --labels")
    model, processor = _load(request, revision, settings, shown)
    if isinstance(model, Classifier):
        return evaluate_labels(
            model, processor, examples, dataset.labels, batch_size=request.batch_size, on_event=shown
        )
    asked = request.templates or request.labels or is_trained_pair(request.adapter_path)
    if request.adapter_path is not None and not asked:
        raise InputError(
            f"{request.adapter_path} holds no head to evaluate: it was not trained to classify; with an image-text"
            " pair, give --labels or --template"
        )
    if isinstance(model, Aimv2VisionModel):
        check_head_is_named(request.model, request.adapter_path)
    for notice in choice.notices if choice else ():
        shown(notice)
    return evaluate_labels(
        model,
        processor,
        examples,
        choice.texts if choice else dataset.labels,
        request.templates,
        batch_size=request.batch_size,
        on_event=shown,
    )


def among(examples: list[Labelled], classes: Sequence[str], choice: Choice) -> list[Labelled]:
    """The examples with the places of labels that were chosen, in place of the numbers of classes.

    Raises:
        InputError: a class that occurs is not among them.
    """
    found = []
    for path, own in examples:
        places = tuple(place for number in own if (place := choice.numbers[number]) is not None)
        if len(places) < len(own):
            lacking = next(classes[number] for number in own if choice.numbers[number] is None)
            raise InputError(f"--labels lacks {lacking!r}, which the data has: add a line with it")
        found.append((path, places))
    return found


def _captions(
    request: Request, revision: str | None, settings: LoadOptions, shown: Screen
) -> RetrievalEvaluation:
    from ..datasets.captioned import read_captions
    from ..datasets.held_out import choose_splits
    from ..evaluation.retrieval import evaluate_retrieval
    from ..models.classifier import Classifier

    for name, value in (
        ("--template", request.templates), ("--labels", request.labels), ("--predictions", request.predictions),
    ):  # fmt: skip
        if value:
            raise InputError(
                f"{name} is for labelled images, and {request.data} holds captions: leave it out"
            )
    dataset, splits = choose_splits(
        read_captions, request.data, request.adapter_path, _measure(request), shown
    )
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


def show(evaluation: Evaluation) -> None:
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
