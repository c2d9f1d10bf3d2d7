"""`mlx-aimv2 classify`: labels for pictures, zero-shot or from a trained head."""

from __future__ import annotations

import dataclasses
import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from . import options
from .bulk import pictures, run
from .screen import screen
from .trained import check_head_is_named, is_trained_pair
from .ui import plain, put, verb

if TYPE_CHECKING:
    from ..zeroshot import Classified, Prediction

BAR = 24


@verb
def classify(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="PICTURES...", help="Pictures, folders, patterns; - for a list on stdin."),
    ],
    labels: Annotated[
        list[str],
        typer.Option("--labels", "-l", help="Labels, separated by commas; may be given several times."),
    ] = [],  # noqa: B006 - typer makes a new list each time
    labels_file: Annotated[Path | None, typer.Option(help="A file with one label per line.")] = None,
    template: Annotated[
        list[str], typer.Option(help="Sentence with {} for the label; may be given several times.")
    ] = [],  # noqa: B006
    templates: Annotated[Path | None, typer.Option(help="A file with one template per line.")] = None,
    score: Annotated[
        str, typer.Option(help="softmax: probabilities over the labels; cosine: each by itself.")
    ] = "softmax",
    none: Annotated[str | None, typer.Option(help="A further label that stands for none of these.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Labels shown for each picture.")] = 5,
    model: options.Model = options.DEFAULT,
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
    decode: options.Decode = options.DECODE,
    background: options.Background = options.BACKGROUND,
    max_megapixels: options.MaxMegapixels = options.MAX_MEGAPIXELS,
    min_patches: options.MinPatches = options.MIN_PATCHES,
    max_patches: options.MaxPatches = options.MAX_PATCHES,
) -> None:
    """Say which label fits each picture best: of those given, without training, or of a trained head's."""
    from .. import ZeroShotClassifier, load
    from ..classification import TrainedClassifier
    from ..models.backend import use_device
    from ..models.classifier import Classifier
    from ..zeroshot import check_request

    names = pictures(inputs)
    words = [word.strip() for given in labels for word in given.split(",") if word.strip()] + lines_of(
        labels_file
    )
    sentences = [*template, *lines_of(templates)] or None
    zero_shot = adapter_path is None or is_trained_pair(adapter_path)
    if adapter_path is None and any_base:
        raise InputError("--any-base is for --adapter-path: leave it out")
    if zero_shot:
        if not words:
            check_head_is_named(model, adapter_path)
        check_request(words, sentences, score, none)
    else:
        _check_trained(words, sentences, score, none)
    if device:
        use_device(device)
    settings = options.load_options(
        dtype=dtype,
        keep_quantized=keep_quantized,
        weights=weights,
        decode=decode,
        background=background,
        max_megapixels=max_megapixels,
        min_patches=min_patches,
        max_patches=max_patches,
    )
    with screen() as shown:
        settings = dataclasses.replace(settings, any_base=any_base)
        loaded, processor = load(
            model, revision=revision, options=settings, on_event=shown, adapter_path=adapter_path
        )
        classifier: ZeroShotClassifier | TrainedClassifier
        if isinstance(loaded, Classifier):
            classifier = TrainedClassifier(loaded, processor, batch_size)
        elif zero_shot:
            classifier = ZeroShotClassifier(loaded, processor, words, sentences, score, none, batch_size)
        else:
            raise InputError(f"{adapter_path} holds no head: it was not trained to classify")
        writer = _Writer(json, score, top_k)
        run(classifier.stream(names), names, writer, shown, "classified")


def _check_trained(words: list[str], sentences: list[str] | None, score: str, none: str | None) -> None:
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


class _Writer:
    """Predictions on stdout: drawn on a terminal, lines in a pipe, one list as JSON."""

    def __init__(self, json: bool, score: str, top_k: int) -> None:
        self.json, self.score, self.top_k, self.count = json, score, top_k, 0
        self.draws = sys.stdout.isatty() and not json

    def add(self, name: str, result: Classified) -> None:
        best = (result.predictions or [])[: self.top_k]
        if self.json:
            entry = {"path": name, "predictions": [{"label": label, "score": score} for label, score in best]}
            put(("[" if self.count == 0 else ",") + jsonlib.dumps(entry))
        elif self.draws:
            self._draw(name, best)
        else:
            for label, score in best:
                put(f"{plain(name)}\t{plain(label)}\t{score:.6f}")
        self.count += 1

    def close(self, interrupted: bool = False) -> None:
        if self.json:
            put("]" if self.count else "[]")

    def _draw(self, name: str, best: list[Prediction]) -> None:
        best = [(plain(label), score) for label, score in best]
        width = max(len(label) for label, _ in best)
        put(plain(name))
        for label, score in best:
            shown = f"{score:7.1%}" if self.score == "softmax" else f"{score:+.4f}"
            bar = "█" * round(BAR * min(1.0, max(0.0, score)))
            put(f"  {label:<{width}}  {shown}  {bar}".rstrip())


def lines_of(path: Path | None) -> list[str]:
    """The lines of a text file that are not empty; none for no file."""
    if path is None:
        return []
    from ..storage.text_files import read_lines

    try:
        lines = [line.strip() for line in read_lines(path.expanduser()) if line.strip()]
    except InputError as error:
        raise InputError(f"{error}; a file with one entry per line is expected") from error
    if not lines:
        raise InputError(f"{path} is empty: one entry per line is expected")
    return lines
