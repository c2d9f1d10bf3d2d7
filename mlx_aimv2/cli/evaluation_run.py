"""The work of `mlx-aimv2 evaluate`: read the data, load the model, show and write the evaluation."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..adapters.task import PairTask
from ..datasets.captioned import has_captions, read_captions
from ..datasets.held_out import choose_splits
from ..datasets.labelled import read_dataset
from ..errors import InputError
from ..evaluation.labels import Evaluation, evaluate_labels
from ..evaluation.report import write_report
from ..evaluation.retrieval import RetrievalEvaluation, evaluate_retrieval
from ..inference.label_files import Choice, choose, read_labels
from ..models.classifier import Classifier
from ..models.vision import Aimv2VisionModel
from ..vectors.record_files import RecordFile
from .evaluate_options import STDOUT, EvaluateOptions
from .model_options import ModelOptions
from .output import put, say
from .screen import Screen
from .tables import table

if TYPE_CHECKING:
    from ..evaluation.predictions import Labelled

CLASSES, MISTAKES = 25, 5  # rows of a table; files and JSON have all


def evaluate_data(options: EvaluateOptions, model: ModelOptions, events: Screen) -> None:
    """Evaluate labels or captions, whichever the data holds, and show and write the result.

    Raises:
        Aimv2Error: as data, model and evaluation do.
    """
    assert options.data is not None
    is_captions = has_captions(options.data, options.splits(model).reading)
    evaluation = (_captions if is_captions else _labels)(options.data, options, model, events)
    events.close()
    if isinstance(evaluation, Evaluation):
        evaluation = _with_predictions(evaluation, options)
    written = write_report(options.output, evaluation) if options.output is not None else []
    if options.json:
        put(jsonlib.dumps(evaluation.to_dict(), indent=2))
    elif isinstance(evaluation, Evaluation):
        show_labels(evaluation)
    else:
        show_retrieval(evaluation)
    if written:
        say(f"wrote {', '.join(path.name for path in written)} to {options.output}")


def _with_predictions(evaluation: Evaluation, options: EvaluateOptions) -> Evaluation:
    """The evaluation with its predictions in its JSON, or with their file written.

    Raises:
        OutputError: the file cannot be written.
    """
    if (path := options.predictions_file) is not None:
        file = RecordFile(path, evaluation.predictions.columns, options.force)
        for prediction in evaluation.predictions:
            file.add(prediction)
        file.close()
        say(f"wrote {len(evaluation.predictions):,} predictions to {path}")
    return dataclasses.replace(evaluation, lists_predictions=options.predictions == STDOUT)


def _labels(data: Path, options: EvaluateOptions, model: ModelOptions, events: Screen) -> Evaluation:
    folder = model.adapter_path
    dataset, splits = choose_splits(read_dataset, data, folder, options.splits(model), events)
    examples = [(each.path, each.labels) for name in splits for each in dataset.split(name)]
    choice = None
    if options.labels:
        choice = choose(read_labels(options.labels, set(dataset.labels)), dataset.labels)
        examples = renumbered(examples, dataset.labels, choice)
    is_zero_shot = bool(options.template or options.labels)
    if not is_zero_shot:
        model.check_head_is_named("--template or --labels")
    loaded, processor = model.load(events)
    if isinstance(loaded, Classifier):
        return evaluate_labels(
            loaded, processor, examples, dataset.labels, batch_size=model.batch_size, on_event=events
        )
    if folder is not None and not (
        is_zero_shot or isinstance(model.adapter and model.adapter.task, PairTask)
    ):
        raise InputError(
            f"{folder} holds no head to evaluate: it was not trained to classify; with an image-text pair, give"
            " --labels or --template"
        )
    if isinstance(loaded, Aimv2VisionModel):
        model.check_head_is_named()
    for notice in choice.notices if choice else ():
        events(notice)
    return evaluate_labels(
        loaded,
        processor,
        examples,
        choice.texts if choice else dataset.labels,
        options.template or None,
        batch_size=model.batch_size,
        on_event=events,
    )


def renumbered(examples: list[Labelled], classes: Sequence[str], choice: Choice) -> list[Labelled]:
    """The examples with indices into the chosen labels, in place of indices into the classes.

    Raises:
        InputError: no chosen label stands for the class of an example.
    """
    chosen: list[Labelled] = []
    for path, numbers in examples:
        labels = []
        for number in numbers:
            label = choice.numbers[number]
            if label is None:
                raise InputError(
                    f"--labels lacks {classes[number]!r}, which the data has: add a line with it"
                )
            labels.append(label)
        chosen.append((path, tuple(labels)))
    return chosen


def _captions(
    data: Path, options: EvaluateOptions, model: ModelOptions, events: Screen
) -> RetrievalEvaluation:
    label_options = {
        "--template": options.template,
        "--labels": options.labels,
        "--predictions": options.predictions,
    }
    for name, value in label_options.items():
        if value:
            raise InputError(f"{name} is for labelled images, and {data} holds captions: leave it out")
    dataset, splits = choose_splits(read_captions, data, model.adapter_path, options.splits(model), events)
    loaded, processor = model.load(events)
    if isinstance(loaded, Classifier):
        raise InputError(
            f"{model.adapter_path} holds a head for labels, and {data} holds captions: leave out"
            " --adapter-path, or name one of finetune --task contrastive"
        )
    examples = [(each.path, each.captions) for name in splits for each in dataset.split(name)]
    return evaluate_retrieval(loaded, processor, examples, batch_size=model.batch_size, on_event=events)


def show_retrieval(evaluation: RetrievalEvaluation) -> None:
    """Print the metrics, and the captions that rank their image lowest."""
    table(("what", "value"), evaluation.metrics.rows())
    if evaluation.mistakes:
        rows = [(x.caption, x.path, x.found, f"{x.rank:,}") for x in evaluation.mistakes[:MISTAKES]]
        table(("worst captions", "image", "found instead", "rank"), rows, paths=("image", "found instead"))


def show_labels(evaluation: Evaluation) -> None:
    """Print the metrics, the classes (the worst, if there are many), and the most confident mistakes."""
    metrics = evaluation.metrics
    table(("what", "value"), metrics.rows())
    rows, classes = metrics.class_rows(), metrics.per_class
    if len(rows) > CLASSES:  # those with the least F1; those without images come last
        order = sorted(range(len(rows)), key=lambda k: (classes[k].support == 0, classes[k].f1))
        rows = [rows[k] for k in order[:CLASSES]]
    table(("class", "precision", "recall", "F1", "images"), rows)
    if evaluation.mistakes:
        mistakes = [
            (x.path, ", ".join(x.truth), ", ".join(x.predicted), f"{x.confidence:.2%}")
            for x in evaluation.mistakes[:MISTAKES]
        ]
        table(("surest mistakes", "truth", "prediction", "confidence"), mistakes, paths=("surest mistakes",))
    if len(rows) < len(classes):
        say(f"these are the {len(rows)} of {len(classes)} classes with the least F1; --json gives all")
