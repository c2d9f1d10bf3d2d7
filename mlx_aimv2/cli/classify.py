"""`mlx-aimv2 classify`: labels for images, zero-shot or from a trained head."""

from __future__ import annotations

import json as jsonlib
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..messages import counted
from ..options.fields import at_least, check_fields, like, option
from ..sources.options import CropOptions, SourceOptions
from .arguments import sources
from .completion import SCORES, choices
from .guard import verb
from .jobs import run
from .model_options import JsonOptions, ModelOptions
from .output import plain, put, say
from .regions import check_named, noting_clipped
from .screen import Screen, screen

if TYPE_CHECKING:
    from ..inference.label_files import Label
    from ..inference.trained_head import TrainedClassifier
    from ..inference.zero_shot import Classified, Prediction, ZeroShotClassifier

BAR, BESIDE = 24, 14  # columns of a bar, and of the score and spaces on its line
COLUMNS = {"path": str, "label": str, "score": float}


@dataclass(frozen=True)
class ClassifyOptions:
    """The labels to choose from, and where to write them."""

    labels: tuple[str, ...] = option(
        (),
        "Labels, separated by commas, or a file of them; `id=name` names a label that the model cannot know.",
        flags=("--labels", "-l"),
    )
    labels_file: Path | None = option(
        None, "A file of labels: a line each, or an id, a tab and a name; or JSON."
    )
    template: tuple[str, ...] = option((), "Sentence with {} for the label; may be given several times.")
    templates: Path | None = option(None, "A file with one template per line.")
    score: str = option(
        "softmax",
        "softmax: probabilities over the labels; cosine: similarity with each label.",
        autocompletion=choices(SCORES),
    )
    none: str | None = option(None, "One more label, for images that none of the others fits.")
    top_k: int = option(5, "Labels shown for each image, at least 1.", None, at_least(1))
    output: Path | None = option(
        None, "File (.csv .tsv .json .jsonl .parquet) for the labels.", flags=("-o", "--output")
    )
    force: bool = option(False, "Replace the file.")
    json: bool = like(JsonOptions, "json")

    def __post_init__(self) -> None:
        check_fields(self)

    @cached_property
    def all_labels(self) -> list[Label]:
        """The labels of --labels and --labels-file, which is read once: it may be a pipe."""
        from ..inference.label_files import read_label_file, read_labels

        return [*read_labels(self.labels), *(read_label_file(self.labels_file) if self.labels_file else [])]

    @cached_property
    def all_templates(self) -> list[str] | None:
        """The templates of --template and --templates, which is read once: it may be a pipe."""
        from ..inference.label_files import lines_of

        return [*self.template, *lines_of(self.templates)] or None

    def check_output(self, names: list[str]) -> None:
        """Check the file before a model is loaded.

        Raises:
            InputError: options that contradict each other, or a file of unknown format, or one that exists.
            OutputError: it cannot be written.
        """
        from ..vectors.record_files import check_record_file

        if self.output is None:
            if self.force:
                raise InputError("--force is for -o: leave it out")
            return
        if self.json:
            raise InputError("--json prints to stdout and -o writes a file: give one of them")
        check_record_file(self.output.expanduser(), names, self.force)

    def check_for_head(self) -> None:
        """Refuse options for zero-shot labels, as a trained head has labels of its own.

        Raises:
            InputError: the option.
        """
        zero_shot_options = {
            "--labels": self.labels or self.labels_file,
            "--template": self.template or self.templates,
            "--none": self.none,
        }
        for name, value in zero_shot_options.items():
            if value:
                raise InputError(
                    f"{name} is for zero-shot labels: leave it out, or --adapter-path, which has its own"
                )
        if self.score != "softmax":
            raise InputError(
                f"--score {self.score} is for zero-shot labels: a trained head gives probabilities"
            )


@verb
def classify(
    *,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES...",
            help="Images, folders, patterns, archives, tables, videos, addresses; - for a list on stdin."
            " None with --boxes.",
        ),
    ] = None,
    options: ClassifyOptions,
    model: ModelOptions,
    source: SourceOptions,
    regions: CropOptions,
) -> None:
    """Print the labels that fit each image best: of yours, without training, or of a trained head."""
    from ..adapters.task import PairTask, Task
    from ..inference.label_files import Label, texts_of
    from ..inference.zero_shot import check_request

    found = sources(check_named(inputs, regions, "classify"), model.exclude, source, regions, model.decoding)
    texts = texts_of(options.all_labels)
    options.check_output(found.names)
    task = model.adapter.task if model.adapter is not None else None
    if isinstance(task, Task):
        options.check_for_head()
    elif texts or model.adapter is None or isinstance(task, PairTask):
        if not texts:
            model.check_head_is_named()
        if options.none is not None:
            texts = texts_of([*options.all_labels, Label(options.none, options.none)])
        check_request(texts, options.all_templates, options.score)
    with screen(found.empty) as events:
        classifier = _classifier(options, model, texts, events)
        writer = _File(options, texts) if options.output else _Writer(options, texts)
        stream = noting_clipped(classifier.stream(found.images), found.images, events)
        run(stream, found.names, writer, events, "classified")


def _classifier(
    options: ClassifyOptions, model: ModelOptions, texts: Mapping[str, str], events: Screen
) -> ZeroShotClassifier | TrainedClassifier:
    """The classifier with the trained head that was loaded, or else with zero-shot labels.

    Raises:
        InputError: the adapter has no head, and there are no labels.
    """
    from .. import ZeroShotClassifier
    from ..inference.label_files import derived_notices
    from ..inference.trained_head import TrainedClassifier
    from ..models.classifier import Classifier

    loaded, processor = model.load(events)
    if isinstance(loaded, Classifier):
        return TrainedClassifier(loaded, processor, model.batch_size)
    if not texts:
        raise InputError(
            f"{model.adapter_path} holds no head: it was not trained to classify;"
            " with an image-text pair, give --labels"
        )
    for notice in derived_notices(options.all_labels, texts):
        events(notice)
    classifier = ZeroShotClassifier(
        loaded,
        processor,
        texts,
        options.all_templates,
        options.score,
        batch_size=model.batch_size,
        on_event=events,
    )
    events.close()
    return classifier


@dataclass(frozen=True)
class _Labelled:
    """An image with its best labels, and the texts of labels in prompts."""

    path: str
    best: list[Prediction]
    texts: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The entry of JSON; a label with another text in prompts comes with its text."""
        predictions = [
            {"label": label} | ({} if text == label else {"text": text}) | {"score": score}
            for label, text, score in self.with_texts()
        ]
        return {"path": self.path, "predictions": predictions}

    def rows(self) -> list[tuple[str, str, float]]:
        """The cells of `COLUMNS` for each label, best first."""
        return [(self.path, label, score) for label, score in self.best]

    def with_texts(self) -> list[tuple[str, str, float]]:
        """Label, text and score, best first."""
        return [(label, self.texts.get(label, label), score) for label, score in self.best]


class _File:
    """Predictions in a file."""

    def __init__(self, options: ClassifyOptions, texts: Mapping[str, str]) -> None:
        from ..vectors.record_files import RecordFile

        assert options.output is not None
        self.file = RecordFile(options.output.expanduser(), COLUMNS, options.force)
        self.top_k, self.texts = options.top_k, texts

    def add(self, name: str, result: Classified) -> None:
        self.file.add(_Labelled(name, result.predictions[: self.top_k], self.texts))

    def close(self, interrupted: bool = False) -> None:
        self.file.close(interrupted)
        labels = f"wrote the labels of {counted(self.file.count, 'image')}"
        say(f"{labels if self.file.count else 'nothing to write'} to {self.file.path}")


class _Writer:
    """Predictions on stdout: bars on a terminal, a table in a pipe, or one JSON list."""

    def __init__(self, options: ClassifyOptions, texts: Mapping[str, str]) -> None:
        self.options, self.texts, self.count = options, texts, 0
        self.draws = sys.stdout.isatty() and not options.json
        if not (options.json or self.draws):
            put("\t".join(COLUMNS))

    def add(self, name: str, result: Classified) -> None:
        labelled = _Labelled(name, result.predictions[: self.options.top_k], self.texts)
        if self.options.json:
            put(("[" if self.count == 0 else ",") + jsonlib.dumps(labelled.to_dict()))
        elif self.draws:
            self._draw(labelled)
        else:
            for _, label, score in labelled.rows():
                put(f"{plain(name)}\t{plain(label)}\t{score:.6f}")
        self.count += 1

    def close(self, interrupted: bool = False) -> None:
        if self.options.json:
            put("]" if self.count else "[]")

    def _draw(self, labelled: _Labelled) -> None:
        rows = [
            (plain(label if text == label else f"{label} ({text})"), score)
            for label, text, score in labelled.with_texts()
        ]
        width = max(len(label) for label, _ in rows)
        room = max(0, min(BAR, shutil.get_terminal_size().columns - width - BESIDE))
        put(plain(labelled.path))
        for label, score in rows:
            number = f"{score:7.1%}" if self.options.score == "softmax" else f"{score:+.4f}"
            bar = "█" * round(room * min(1.0, max(0.0, score)))
            put(f"  {label:<{width}}  {number}  {bar}".rstrip())
