"""How good a model's labels are on images whose labels are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError, NonFiniteError
from ..events import OnEvent, Progress, Skipped, ignore, warn
from ..inference.class_names import label_texts, reading_notices
from ..inference.probabilities import log_softmax, sigmoid
from ..inference.stream import Embedded
from ..inference.trained_head import check_count, logit_stream
from ..inference.zero_shot import Labels, ZeroShotClassifier
from ..loading import AnyModel
from ..messages import quoted
from ..models.classifier import Classifier
from ..processing.processor import Processor
from .metrics import THRESHOLD, Metrics, measure, measure_multi_label
from .plots import draw_calibration, draw_confusion
from .predictions import Labelled, Predictions

STAGE = "evaluating"
MISTAKES = 100  # of the wrong images, how many are kept

LogitStream = Callable[[Sequence[str]], Iterable[Embedded]]


@dataclass(frozen=True)
class Mistake:
    """An image that was labelled wrongly.

    Attributes:
        path: where it lies.
        truth: its labels.
        predicted: those it was given.
        confidence: the probability of what was said of it; with several labels, of what was most surely wrong.
    """

    path: str
    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    confidence: float


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on some images.

    Attributes:
        metrics: the numbers.
        skipped: images that could not be read, and why; they count nowhere.
        mistakes: the wrong images of the highest confidence, the surest first.
        predictions: of every image that could be read.
        label_texts: what each label was called in a prompt; none without prompts.
        lists_predictions: whether `to_dict` has all predictions, under the key `predictions`.
    """

    metrics: Metrics
    skipped: tuple[Skipped, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    predictions: Predictions = field(default_factory=Predictions)
    label_texts: tuple[str, ...] = ()
    lists_predictions: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The numbers and mistakes as plain values for JSON; the metrics stand at the top."""
        return {
            **self.metrics.to_dict(),
            **({"label_texts": list(self.label_texts)} if self.label_texts else {}),
            **(
                {"predictions": [one.to_dict() for one in self.predictions]} if self.lists_predictions else {}
            ),
            "mistakes": [
                {**vars(each), "truth": list(each.truth), "predicted": list(each.predicted)}
                for each in self.mistakes
            ],
            "skipped": [{"path": each.source, "reason": each.reason} for each in self.skipped],
        }

    def drawn(self) -> dict[str, Image.Image]:
        """Images for a report, by the names of their files."""
        images = {"calibration.png": draw_calibration(self.metrics.calibration)}
        if self.metrics.confusion is not None:
            images["confusion.png"] = draw_confusion(self.metrics.confusion, self.metrics.labels)
        return images


def evaluate_classifier(
    classifier: Classifier,
    processor: Processor,
    examples: Sequence[Labelled],
    labels: Sequence[str],
    *,
    batch_size: int | None = None,
    multi_label: bool = False,
    on_event: OnEvent = ignore,
) -> Evaluation:
    """Measure a trained head; it is put into eval mode.

    Args:
        classifier: its `labels`, where it has any, are what ``labels`` are looked up in by name.
        processor: from `load`.
        examples: paths of images with numbers of ``labels``.
        labels: what the numbers of the examples stand for.
        batch_size: images computed at once; None for what suits the device.
        multi_label: an image may have any number of labels, each a yes or no; else it has exactly one.
        on_event: called with progress, and the images that cannot be read.

    Raises:
        InputError: no examples, none that can be read, a label the classifier does not know, or an image with
            none or several where it has to have one.
        NonFiniteError: the classifier gives NaN or infinity.
    """
    _check_examples(examples, labels, multi_label)
    known = tuple(classifier.labels) or tuple(labels)
    examples = _translated(examples, labels, known)
    stream = logit_stream(classifier, processor, batch_size)
    return _evaluate(stream, examples, known, multi_label, on_event)


def evaluate_zero_shot(
    model: AnyModel,
    processor: Processor,
    examples: Sequence[Labelled],
    labels: Labels,
    templates: Sequence[str] | None = None,
    *,
    batch_size: int | None = None,
    on_event: OnEvent = warn,
) -> Evaluation:
    """Measure an image-text pair that knows nothing but the labels' words.

    Args:
        model: an image-text pair from `load`.
        processor: from `load`.
        examples: paths of images, each with the number of one label.
        labels: what the numbers stand for: names of classes, of which `label_texts` makes words for the prompts; or
            a mapping of names to such words.
        templates: sentences with `{}` where the label goes; None for a small set of general ones.
        batch_size: images computed at once; None for what suits the device.
        on_event: called with progress, notices, and the images that cannot be read; without it, notices are Python
            warnings.

    Raises:
        InputError: the model has no text encoder, fewer than two labels, two that are the same words, a template
            without `{}`, or examples as `evaluate_classifier` refuses them.
        NonFiniteError: the model gives NaN or infinity.
    """
    names = tuple(labels)
    _check_examples(examples, names, multi_label=False)
    if not isinstance(labels, Mapping):
        texts = label_texts(names)
        for notice in reading_notices(names, texts):
            on_event(notice)
        labels = dict(zip(names, texts, strict=True))
    classifier = ZeroShotClassifier(
        model, processor, labels, templates, batch_size=batch_size, on_event=on_event
    )

    def stream(paths: Sequence[str]) -> Iterator[Embedded]:
        for item in classifier.embedder.stream(paths):
            logits = None if item.vector is None else classifier.logits(item.vector[None])[0]
            yield Embedded(item.index, logits, item.error)

    evaluation = _evaluate(stream, examples, names, False, on_event)
    return replace(evaluation, label_texts=tuple(classifier.texts))


def _translated(examples: Sequence[Labelled], labels: Sequence[str], known: Sequence[str]) -> list[Labelled]:
    """The examples with numbers of ``known`` in place of those of ``labels``."""
    numbers = {label: k for k, label in enumerate(known)}
    if unknown := [label for label in labels if label not in numbers]:
        raise InputError(
            f"the classifier does not know {quoted(unknown)}: it was trained on {quoted(known)}; evaluate it on"
            " images with its own labels"
        )
    return [(path, tuple(numbers[labels[k]] for k in numbered)) for path, numbered in examples]


def _evaluate(
    stream: LogitStream,
    examples: Sequence[Labelled],
    labels: tuple[str, ...],
    multi_label: bool,
    on_event: OnEvent,
) -> Evaluation:
    skipped: list[Skipped] = []
    good, rows = [], []
    on_event(Progress(STAGE, 0, len(examples)))
    for item in stream([path for path, _ in examples]):
        path = examples[item.index][0]
        if isinstance(item.error, NonFiniteError):  # numbers of the others would be no numbers of the model
            raise NonFiniteError(f"{path}: {item.error}") from item.error
        if item.vector is None:
            skipped.append(Skipped(path, str(item.error)))
            on_event(skipped[-1])
        else:
            check_count(item, labels)
            good.append(examples[item.index])
            rows.append(item.vector)
        on_event(Progress(STAGE, item.index + 1, len(examples)))
    if not good:
        raise InputError(f"none of {len(examples)} images can be read, the first because {skipped[0].reason}")
    logits = np.stack(rows)  # (N, C)
    if multi_label:
        targets = np.zeros(logits.shape, dtype=np.int64)
        for row, (_, numbers) in zip(targets, good, strict=True):
            row[list(numbers)] = 1
        metrics = measure_multi_label(logits, targets, labels)
        mistakes = _multi_label_mistakes(good, logits, targets, labels)
    else:
        metrics = measure(logits, np.array([numbers[0] for _, numbers in good]), labels)
        mistakes = _mistakes(good, logits, labels)
    predictions = Predictions.from_logits(good, logits, labels, multi_label)
    return Evaluation(metrics, tuple(skipped), tuple(mistakes), predictions)


def _check_examples(examples: Sequence[Labelled], labels: Sequence[str], multi_label: bool) -> None:
    if not examples:
        raise InputError("there are no images to evaluate")
    for path, numbers in examples:
        if not multi_label and len(numbers) != 1:
            raise InputError(
                f"{path} has {len(numbers)} labels, and this model gives every image exactly one: evaluate one"
                " that was trained on several labels"
            )
        if any(not 0 <= number < len(labels) for number in numbers):
            raise InputError(
                f"{path} has the label number {max(numbers)}, and there are {len(labels)} labels"
            )


def _mistakes(good: Sequence[Labelled], logits: np.ndarray, labels: Sequence[str]) -> Iterator[Mistake]:
    """The wrong images of the highest confidence, where every image has one label."""
    predicted = logits.argmax(axis=1)
    confidence = np.exp(log_softmax(logits).max(axis=1))
    wrong = [k for k, (_, numbers) in enumerate(good) if predicted[k] != numbers[0]]
    for k in sorted(wrong, key=lambda k: -confidence[k])[:MISTAKES]:
        path, (number,) = good[k]
        yield Mistake(path, (labels[number],), (labels[predicted[k]],), float(confidence[k]))


def _multi_label_mistakes(
    good: Sequence[Labelled], logits: np.ndarray, targets: np.ndarray, labels: Sequence[str]
) -> Iterator[Mistake]:
    """The images with a label too many or too few of the highest confidence."""
    probabilities = sigmoid(logits)
    predicted = probabilities >= THRESHOLD
    sure = np.where(predicted != targets.astype(bool), np.maximum(probabilities, 1 - probabilities), 0)
    confidence = sure.max(axis=1)
    for k in np.argsort(-confidence, kind="stable")[:MISTAKES]:
        if confidence[k] > 0:
            named = [tuple(labels[int(c)] for c in np.flatnonzero(row[k])) for row in (targets, predicted)]
            yield Mistake(good[k][0], named[0], named[1], float(confidence[k]))
