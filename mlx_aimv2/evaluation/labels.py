"""Evaluation of predicted labels: a trained head or a zero-shot pair on images whose labels are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError
from ..events import OnEvent, Skipped, warn
from ..inference.class_names import label_texts, reading_notices
from ..inference.collect import collect
from ..inference.probabilities import log_softmax, sigmoid
from ..inference.trained_head import check_logits, logit_stream
from ..inference.zero_shot import Labels, ZeroShotClassifier
from ..loading import AnyModel
from ..messages import quoted
from ..models.classifier import Classifier
from ..processing.processor import Processor
from ..processing.samples import SampleNames, Samples, has_samples, samples_of
from ..processing.source_image import SourceImage, name_of
from .charts import draw_calibration, draw_confusion
from .metrics import THRESHOLD, Metrics, measure, measure_multi_label
from .predictions import Labelled, Predictions

STAGE = "evaluating"
MISTAKES = 100  # wrong images that an evaluation keeps


@dataclass(frozen=True)
class Mistake:
    """An image with a wrong prediction.

    Attributes:
        path: of the image.
        truth: its labels.
        predicted: the predicted labels.
        confidence: the probability of the predicted label; with several labels, of the most confident wrong decision.
    """

    path: str
    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    confidence: float


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts the labels of some images.

    Attributes:
        metrics: the numbers.
        skipped: images that cannot be read, and why; the metrics leave them out.
        mistakes: the 100 wrong predictions of the highest confidence, the most confident first.
        predictions: of every image that can be read.
        label_texts: what prompts call each label; empty without prompts.
        lists_predictions: whether `to_dict` has all predictions, under the key `predictions`.
    """

    metrics: Metrics
    skipped: tuple[Skipped, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    predictions: Predictions = field(default_factory=Predictions)
    label_texts: tuple[str, ...] = ()
    lists_predictions: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the metrics at the top."""
        values = self.metrics.to_dict()
        if self.label_texts:
            values["label_texts"] = list(self.label_texts)
        if self.lists_predictions:
            values["predictions"] = [prediction.to_dict() for prediction in self.predictions]
        values["mistakes"] = [
            {**vars(each), "truth": list(each.truth), "predicted": list(each.predicted)}
            for each in self.mistakes
        ]
        values["skipped"] = [{"path": each.source, "reason": each.reason} for each in self.skipped]
        return values

    def charts(self) -> dict[str, bytes]:
        """The PNG files of a report, by name."""
        charts = {"calibration.png": draw_calibration(self.metrics.calibration)}
        if self.metrics.confusion is not None:
            charts["confusion.png"] = draw_confusion(self.metrics.confusion, self.metrics.labels)
        return charts


def evaluate_labels(
    model: AnyModel | Classifier,
    processor: Processor,
    examples: Sequence[tuple[str | SourceImage, tuple[int, ...]]],
    labels: Labels,
    templates: Sequence[str] | None = None,
    *,
    batch_size: int | None = None,
    on_event: OnEvent = warn,
) -> Evaluation:
    """Compare the labels that a model predicts for images with their true labels.

    A model with a trained head predicts its own labels, which are matched with ``labels`` by name. An image-text pair
    predicts zero-shot, from prompts made of ``labels`` and ``templates``.

    Args:
        model: from `load`: a `Classifier` (with an adapter that has a head; it is put into eval mode) or an
            image-text pair.
        processor: from `load`.
        examples: pairs of an image's path (or a `SourceImage`) and the numbers of its labels, as indices into
            ``labels``: exactly one label, or any number where the head is for several labels. Or an
            `mlx.data.Buffer`, whose samples have the keys ``image`` and ``label`` (such numbers, or a name), and
            perhaps ``id``.
        labels: names of the labels; for a pair also a mapping of names to the texts that prompts use.
        templates: for a pair, sentences with `{}` in place of the label; None for a small general set.
        batch_size: images per forward pass; None for what suits the device.
        on_event: called with `Progress`, `Notice` and `Skipped`; by default, notices become Python warnings.

    Returns:
        The metrics (fractions from 0 to 1), predictions, mistakes and skipped images.

    Raises:
        InputError: no example can be read; an index or a count of labels does not fit; a head does not know a label;
            prompts are for a head, equal for two labels, or without `{}`; the model has no head or text encoder.
        NonFiniteError: the model's output holds NaN or infinity.
    """
    names, texts = tuple(labels), tuple[str, ...]()
    multi_label = isinstance(model, Classifier) and model.multi_label
    samples = samples_of(examples) if has_samples(examples) else None
    known: Sequence[Labelled] = []
    if samples is None:
        images: Sequence[Any] = [image for image, _ in examples]
        known = [(name_of(image), numbers) for image, numbers in examples]
        image_names: Sequence[str] = _checked_paths(known, names, multi_label)
    else:
        images, image_names = samples, SampleNames(samples)
    given = names
    if isinstance(model, Classifier):
        if templates is not None:
            raise InputError("templates are for zero-shot labels, and this model has a head: leave them out")
        known, names = _renumbered(known, names, tuple(model.labels) or names)
        stream = logit_stream(model, processor, batch_size)(images)
    else:
        classifier = _zero_shot(model, processor, labels, templates, batch_size, on_event)
        texts, stream = tuple(classifier.texts), classifier.stream_logits(images)
    collected = collect(check_logits(stream, names), image_names, STAGE, on_event)
    logits = collected.vectors  # (N, C)
    if samples is None:
        known = [known[k] for k in collected.indices]
    else:
        known = _labelled(samples, image_names, collected.indices, given)
        _checked_paths(known, given, multi_label)
        known, _ = _renumbered(known, given, names)
    metrics, mistakes = (_several_labels if multi_label else _one_label)(known, logits, names)
    predictions = Predictions.from_logits(known, logits, names, multi_label)
    return Evaluation(metrics, collected.skipped, mistakes, predictions, texts)


def _zero_shot(
    model: AnyModel,
    processor: Processor,
    labels: Labels,
    templates: Sequence[str] | None,
    batch_size: int | None,
    on_event: OnEvent,
) -> ZeroShotClassifier:
    """A classifier from prompts; a label name without a text is turned into one, such as `a_bird` into `a bird`."""
    if not isinstance(labels, Mapping):
        texts = label_texts(labels)
        for notice in reading_notices(labels, texts):
            on_event(notice)
        labels = dict(zip(labels, texts, strict=True))
    return ZeroShotClassifier(model, processor, labels, templates, batch_size=batch_size, on_event=on_event)


def _checked_paths(examples: Sequence[Labelled], labels: Sequence[str], multi_label: bool) -> list[str]:
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
    return [path for path, _ in examples]


def _labelled(
    samples: Samples, image_names: Sequence[str], indices: Sequence[int], labels: tuple[str, ...]
) -> list[Labelled]:
    """The names of samples with the numbers of their labels, which the samples give as numbers or names."""
    numbers: dict[object, int] = {name: number for number, name in enumerate(labels)}
    examples = []
    for index in indices:
        name, own = image_names[index], samples.labels.get(index)
        if own is None:
            raise InputError(f"{name} has no label: a sample needs the key label, which rename_key gives it")
        if unknown := [label for label in own if isinstance(label, str) and label not in numbers]:
            raise InputError(f"{name} has the label {unknown[0]!r}, which is not one of {quoted(labels)}")
        examples.append((name, tuple(numbers.get(label, label) for label in own)))
    return examples  # type: ignore[return-value]


def _renumbered(
    examples: Sequence[Labelled], labels: Sequence[str], known: tuple[str, ...]
) -> tuple[list[Labelled], tuple[str, ...]]:
    """The examples with indices into ``known`` in place of indices into ``labels``, and ``known``."""
    numbers = {label: k for k, label in enumerate(known)}
    if unknown := [label for label in labels if label not in numbers]:
        raise InputError(
            f"the classifier does not know {quoted(unknown)}: it was trained on {quoted(known)}; evaluate it on"
            " images with its own labels"
        )
    return [(path, tuple(numbers[labels[k]] for k in own)) for path, own in examples], known


def _one_label(
    examples: Sequence[Labelled], logits: np.ndarray, labels: Sequence[str]
) -> tuple[Metrics, tuple[Mistake, ...]]:
    """Metrics and mistakes where every image has one label; logits (N, C)."""
    targets = np.array([numbers[0] for _, numbers in examples])
    predicted = logits.argmax(axis=1)
    confidence = np.exp(log_softmax(logits).max(axis=1))
    wrong = sorted(np.flatnonzero(predicted != targets).tolist(), key=lambda k: -confidence[k])
    mistakes = tuple(
        Mistake(examples[k][0], (labels[targets[k]],), (labels[predicted[k]],), float(confidence[k]))
        for k in wrong[:MISTAKES]
    )
    return measure(logits, targets, labels), mistakes


def _several_labels(
    examples: Sequence[Labelled], logits: np.ndarray, labels: Sequence[str]
) -> tuple[Metrics, tuple[Mistake, ...]]:
    """Metrics and mistakes where an image may have any number of labels; logits (N, C)."""
    targets = np.zeros(logits.shape, dtype=np.int64)
    for row, (_, numbers) in zip(targets, examples, strict=True):
        row[list(numbers)] = 1
    probabilities = sigmoid(logits)
    predicted = probabilities >= THRESHOLD
    wrong = np.where(predicted != targets.astype(bool), np.maximum(probabilities, 1 - probabilities), 0)
    confidence = wrong.max(axis=1)
    mistakes = []
    for k in np.argsort(-confidence, kind="stable")[:MISTAKES]:
        if confidence[k] > 0:
            truth, own = (
                tuple(labels[c] for c in np.flatnonzero(row[k]).tolist()) for row in (targets, predicted)
            )
            mistakes.append(Mistake(examples[k][0], truth, own, float(confidence[k])))
    return measure_multi_label(logits, targets, labels), tuple(mistakes)
