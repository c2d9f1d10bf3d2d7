"""`mlx-aimv2 classify`: labels for images, zero-shot or from a trained head."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..messages import counted
from . import parameters as options
from .completion import SCORES, choices
from .guard import verb
from .jobs import images, run
from .output import plain, put, say
from .screen import screen
from .trained_folders import base_of, check_head_is_named, has_head, is_trained_pair

if TYPE_CHECKING:
    from ..inference.zero_shot import Classified, Prediction

BAR, BESIDE = 24, 14  # columns of a bar, and of what is on its line apart from the label
COLUMNS = {"path": str, "label": str, "score": float}


@verb
def classify(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES...", help="Images, folders, patterns; - for a list on stdin."),
    ],
    labels: options.Labels = [],  # noqa: B006 - typer makes a new list each time
    labels_file: Annotated[
        Path | None, typer.Option(help="A file of labels: a line, or an id, a tab and a name; or JSON.")
    ] = None,
    template: Annotated[
        list[str], typer.Option(help="Sentence with {} for the label; may be given several times.")
    ] = [],  # noqa: B006
    templates: Annotated[Path | None, typer.Option(help="A file with one template per line.")] = None,
    score: Annotated[
        str,
        typer.Option(
            help="softmax: probabilities over the labels; cosine: each by itself.",
            autocompletion=choices(SCORES),
        ),
    ] = "softmax",
    none: Annotated[str | None, typer.Option(help="A further label that stands for none of these.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Labels shown for each image.")] = 5,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File (.csv .tsv .json .jsonl .parquet) for the labels."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    model: options.AdaptedModel = None,
    adapter_path: Annotated[
        Path | None,
        typer.Option(
            help="What `finetune` wrote: its labels take the place of --labels, if it was trained on any."
        ),
    ] = None,
    any_base: options.AnyBase = False,
    json: options.Json = False,
    revision: options.Revision = None,
    weights: options.Weights = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    keep_quantized: options.KeepQuantized = False,
    exclude: options.Exclude = [],  # noqa: B006 - typer makes a new list each time
    decode: options.Decode = options.DECODE,
    background: options.Background = options.BACKGROUND,
    max_megapixels: options.MaxMegapixels = options.MAX_MEGAPIXELS,
    allow_truncated: options.AllowTruncated = False,
    color_managed: options.ColorManaged = None,
    min_patches: options.MinPatches = options.MIN_PATCHES,
    max_patches: options.MaxPatches = options.MAX_PATCHES,
    interpolate_positions: options.InterpolatePositions = False,
    image_size: options.ImageSize = None,
) -> None:
    """Say which label fits each image best: of those given, without training, or of a trained head's."""
    from .. import ZeroShotClassifier, load
    from ..backend.device import use_device
    from ..inference.label_files import (
        Label,
        derived_notices,
        lines_of,
        read_label_file,
        read_labels,
        texts_of,
    )
    from ..inference.trained_head import TrainedClassifier
    from ..inference.zero_shot import check_request
    from ..models.classifier import Classifier

    names, empty = images(inputs, exclude)
    given = [*read_labels(labels), *(read_label_file(labels_file) if labels_file else [])]
    sentences = [*template, *lines_of(templates)] or None
    words = texts_of(given)
    zero_shot = not has_head(adapter_path) and (
        bool(words) or adapter_path is None or is_trained_pair(adapter_path)
    )
    if adapter_path is None and any_base:
        raise InputError("--any-base is for --adapter-path: leave it out")
    _check_output(output, force, json, names)
    if zero_shot:
        if not words:
            check_head_is_named(model or options.DEFAULT, adapter_path)
        if none is not None:
            words = texts_of([*given, Label(none, none)])
        check_request(words, sentences, score)
    elif has_head(adapter_path):
        _check_trained(bool(words), sentences, score, none)
    base, revision = base_of(model, revision, adapter_path)
    if device:
        use_device(device)
    settings = options.load_options(
        dtype=dtype,
        keep_quantized=keep_quantized,
        weights=weights,
        decode=decode,
        background=background,
        max_megapixels=max_megapixels,
        allow_truncated=allow_truncated,
        color_managed=color_managed,
        min_patches=min_patches,
        max_patches=max_patches,
        interpolate_positions=interpolate_positions,
        image_size=image_size,
    )
    with screen(empty) as shown:
        settings = dataclasses.replace(settings, any_base=any_base)
        loaded, processor = load(
            base, revision=revision, options=settings, on_event=shown, adapter_path=adapter_path
        )
        classifier: ZeroShotClassifier | TrainedClassifier
        if isinstance(loaded, Classifier):
            classifier = TrainedClassifier(loaded, processor, batch_size)
        elif zero_shot:
            for notice in derived_notices(given, words):
                shown(notice)
            classifier = ZeroShotClassifier(
                loaded, processor, words, sentences, score, batch_size, on_event=shown
            )
            shown.close()
        else:
            raise InputError(
                f"{adapter_path} holds no head: it was not trained to classify;"
                " with an image-text pair, give --labels"
            )
        writer = _File(output, force, top_k, words) if output else _Writer(json, score, top_k, words)
        run(classifier.stream(names), names, writer, shown, "classified")


def _check_output(output: Path | None, force: bool, json: bool, names: list[str]) -> None:
    """Refuse a file that cannot be written, before a model is loaded.

    Raises:
        InputError: options that do not go together, or a file of no known format, or that is there.
        OutputError: it cannot be written.
    """
    from ..vectors.record_files import check_record_file

    if output is None and force:
        raise InputError("--force is for -o: leave it out")
    if output is None:
        return
    if json:
        raise InputError("--json prints to stdout and -o writes a file: give one of them")
    check_record_file(output.expanduser(), names, force)


def _check_trained(words: bool, sentences: list[str] | None, score: str, none: str | None) -> None:
    """Refuse what only zero-shot labels have a use for.

    Raises:
        InputError: the option.
    """
    given = {"--labels": words, "--template": sentences, "--none": none}
    for option, value in given.items():
        if value:
            raise InputError(
                f"{option} is for zero-shot labels: leave it out, or --adapter-path, which has its own"
            )
    if score != "softmax":
        raise InputError(f"--score {score} is for zero-shot labels: a trained head gives probabilities")


@dataclasses.dataclass(frozen=True)
class _Labelled:
    """An image with its best labels."""

    path: str
    best: list[Prediction]
    texts: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The entry of JSON; a label that is called otherwise in a prompt comes with its text."""
        predictions = [{"label": label, **self._text(label), "score": score} for label, score in self.best]
        return {"path": self.path, "predictions": predictions}

    def rows(self) -> list[tuple[str, str, float]]:
        """A row for each label, best first, with the cells of `COLUMNS`."""
        return [(self.path, label, score) for label, score in self.best]

    def _text(self, label: str) -> dict[str, str]:
        text = self.texts.get(label, label)
        return {} if text == label else {"text": text}


class _File:
    """Predictions in a file."""

    def __init__(self, path: Path, force: bool, top_k: int, texts: Mapping[str, str]) -> None:
        from ..vectors.record_files import RecordFile

        self.file, self.top_k, self.texts = RecordFile(path.expanduser(), COLUMNS, force), top_k, texts

    def add(self, name: str, result: Classified) -> None:
        self.file.add(_Labelled(name, result.predictions[: self.top_k], self.texts))

    def close(self, interrupted: bool = False) -> None:
        self.file.close(interrupted)
        count, path = self.file.count, self.file.path
        say(
            f"wrote the labels of {counted(count, 'image')} to {path}"
            if count
            else f"nothing to write to {path}"
        )


class _Writer:
    """Predictions on stdout: drawn on a terminal, a table in a pipe, one list as JSON."""

    def __init__(self, json: bool, score: str, top_k: int, texts: Mapping[str, str]) -> None:
        self.json, self.score, self.top_k, self.texts, self.count = json, score, top_k, texts, 0
        self.draws = sys.stdout.isatty() and not json
        if not (self.json or self.draws):
            put("\t".join(COLUMNS))

    def add(self, name: str, result: Classified) -> None:
        labelled = _Labelled(name, result.predictions[: self.top_k], self.texts)
        if self.json:
            put(("[" if self.count == 0 else ",") + jsonlib.dumps(labelled.to_dict()))
        elif self.draws:
            self._draw(labelled)
        else:
            for _, label, score in labelled.rows():
                put(f"{plain(name)}\t{plain(label)}\t{score:.6f}")
        self.count += 1

    def close(self, interrupted: bool = False) -> None:
        if self.json:
            put("]" if self.count else "[]")

    def _draw(self, labelled: _Labelled) -> None:
        best = [(self._called(label), score) for label, score in labelled.best]
        width = max(len(label) for label, _ in best)
        room = shutil.get_terminal_size().columns - width - BESIDE
        put(plain(labelled.path))
        for label, score in best:
            shown = f"{score:7.1%}" if self.score == "softmax" else f"{score:+.4f}"
            bar = "█" * round(max(0, min(BAR, room)) * min(1.0, max(0.0, score)))
            put(f"  {label:<{width}}  {shown}  {bar}".rstrip())

    def _called(self, label: str) -> str:
        text = self.texts.get(label, label)
        return plain(label if text == label else f"{label} ({text})")
