"""`mlx-aimv2 classify`: labels for pictures."""

from __future__ import annotations

import functools
import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from ..events import Progress, Skipped
from . import options
from .embed import pictures
from .ui import ALL_DONE, NOT_ALL_DONE, Screen, interruptible, leave, put, say, screen, verb

if TYPE_CHECKING:
    from ..zeroshot import Prediction, ZeroShotClassifier

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
    json: options.Json = False,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    keep_quantized: options.KeepQuantized = False,
    decode: options.Decode = "fast",
    background: options.Background = "white",
    max_megapixels: options.MaxMegapixels = 200.0,
    min_patches: options.MinPatches = 112,
    max_patches: options.MaxPatches = 4096,
) -> None:
    """Say which of the given labels fits each picture best, without training."""
    from .. import ZeroShotClassifier, load
    from ..models.backend import use_device

    names = pictures(inputs)
    words = [word.strip() for given in labels for word in given.split(",") if word.strip()] + lines_of(
        labels_file
    )
    sentences = [*template, *lines_of(templates)] or None
    if device:
        use_device(device)
    settings = options.load_options(
        dtype, keep_quantized, decode, background, max_megapixels, min_patches, max_patches
    )
    with screen() as shown:
        loaded, processor = load(model, revision=revision, options=settings, on_event=shown)
        classifier = ZeroShotClassifier(loaded, processor, words, sentences, score, none)
        classifier.embedder.batch_size = batch_size
        shown.start_clock()
        _run(classifier, names, _Writer(json, score, top_k), shown)


def _run(classifier: ZeroShotClassifier, names: list[str], writer: _Writer, shown: Screen) -> None:
    """Classify all pictures, and end the process."""

    def finish(interrupted: bool = False) -> None:
        shown.close()
        writer.close()
        if len(names) > 1 or interrupted:
            say(shown.summary("classified", writer.count, len(names), interrupted))

    with interruptible(functools.partial(finish, interrupted=True)) as lock:
        for item in classifier.stream(names):
            with lock:
                if item.predictions is None:
                    shown(Skipped(names[item.index], str(item.error)))
                else:
                    writer.add(names[item.index], item.predictions)
                if not writer.draws:  # a bar between the drawn lines would be noise
                    shown(Progress("classifying", item.index + 1, len(names)))
    finish()
    leave(NOT_ALL_DONE if shown.skipped else ALL_DONE)


class _Writer:
    """Predictions on stdout: drawn on a terminal, lines in a pipe, one list as JSON."""

    def __init__(self, json: bool, score: str, top_k: int) -> None:
        self.json, self.score, self.top_k, self.count = json, score, top_k, 0
        self.draws = sys.stdout.isatty() and not json

    def add(self, name: str, predictions: list[Prediction]) -> None:
        best = predictions[: self.top_k]
        if self.json:
            entry = {"path": name, "predictions": [{"label": label, "score": score} for label, score in best]}
            put(("[" if self.count == 0 else ",") + jsonlib.dumps(entry))
        elif self.draws:
            self._draw(name, best)
        else:
            for label, score in best:
                put(f"{name}\t{label}\t{score:.6f}")
        self.count += 1

    def close(self) -> None:
        if self.json:
            put("]" if self.count else "[]")

    def _draw(self, name: str, best: list[Prediction]) -> None:
        width = max(len(label) for label, _ in best)
        put(name)
        for label, score in best:
            shown = f"{score:7.1%}" if self.score == "softmax" else f"{score:+.4f}"
            bar = "█" * round(BAR * min(1.0, max(0.0, score)))
            put(f"  {label:<{width}}  {shown}  {bar}".rstrip())


def lines_of(path: Path | None) -> list[str]:
    """The lines of a text file that are not empty; none for no file."""
    if path is None:
        return []
    try:
        text = path.expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{path} cannot be read: {reason}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path} is empty: one entry per line is expected")
    return lines
