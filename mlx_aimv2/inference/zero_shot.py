"""Zero-shot classification, without training: prompts from labels and templates, and the labels of an image."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..errors import Advice, InputError, NonFiniteError
from ..events import OnEvent, Progress, warn
from ..loading import AnyModel
from ..models.lit import Aimv2Model
from ..processing.decode import ImageInput
from ..processing.processor import Processor
from ..sources.readahead import Failed
from .class_names import id_notices, same_notices
from .collect import mapped, require
from .embedder import TEXTS, CutTexts, Embedder, shortened
from .stream import Embedded

# A few plain prompts. Averaging over phrasings is from CLIP (Radford et al. 2021, section 3.1.4).
DEFAULT_TEMPLATES = (
    "a photo of a {}.",
    "a picture of a {}.",
    "a close-up photo of a {}.",
    "a photo of the {}.",
    "an image showing a {}.",
    "{}",
)
SCORES = ("softmax", "cosine")
STAGE = "labels"
ARTICLE = re.compile(
    r"(a|an|the|some|my|your|his|her|its|our|their|no|one|two|three|many|several)\s", re.IGNORECASE
)
OPEN_ARTICLE = re.compile(r"\b(a|an|the)\s+(?=\{\})")

Prediction = tuple[str, float]
Labels = Sequence[str] | Mapping[str, str]


@dataclass(frozen=True)
class Classified:
    """The labels of item ``index`` with their scores, best first."""

    index: int
    predictions: list[Prediction]
    error: ClassVar[None] = None  # so that every result of a stream can be asked for its error


def ranked(labels: Sequence[str], scores: np.ndarray) -> list[Prediction]:
    """Labels with their scores (C,), best first; labels of equal scores keep their order."""
    return [(labels[k], float(scores[k])) for k in np.argsort(-scores, kind="stable")]


class ZeroShotClassifier:
    """Labels of images from an image-text pair: how similar is an image to prompts with each label?

    The labels are embedded once.

    Attributes:
        labels: the names of the labels.
        texts: the name of each label in a prompt.
        label_embeddings: (C, P) float32 of unit length.
    """

    def __init__(
        self,
        model: AnyModel,
        processor: Processor,
        labels: Labels,
        templates: Sequence[str] | None = None,
        score: str = "softmax",
        background: str | None = None,  # an eighth parameter: labels of a mapping have no other place for it
        batch_size: int | None = None,
        on_event: OnEvent = warn,
    ) -> None:
        """Embed the labels.

        Args:
            model: an image-text pair from `load`.
            processor: from `load`.
            labels: all different. A single text is a single label. A mapping gives the name of each label in a
                prompt: `{"n01855672": "duck"}`.
            templates: sentences with `{}` in the place of the label, used as they are; None for a small set of
                general ones, which drop their article before a label with an article of its own ("a dog").
            score: "softmax" for probabilities over the labels, "cosine" for the cosine similarity with each label.
            background: one more label, the last, for images that none of the others fits.
            batch_size: images in a batch; None for what suits the device.
            on_event: called with progress over the labels, and with notices about labels that look like ids, have
                the same name in a prompt, or are too long. The default makes Python warnings of notices.

        Raises:
            InputError: the model has no text encoder; no labels, a label twice, or an empty label; a template
                without `{}`; an unknown score; or a softmax over a single label, which is 1 for every image.
        """
        if not isinstance(model, Aimv2Model):
            raise InputError(
                "this model has no text encoder, which zero-shot labels need: use the image-text pair lit"
            )
        texts, sentences = check_request(labels, templates, score, background)
        self.labels, self.texts = list(texts), list(texts.values())
        self.score = score
        self._factor = float(model.logit_factor())
        self.embedder = Embedder(model, processor, batch_size=batch_size)
        for notice in (*id_notices(self.texts), *same_notices(texts)):
            on_event(notice)
        fill = fill_template if templates is None else lambda template, text: template.replace("{}", text)
        self.label_embeddings = self._embed_labels(sentences, fill, on_event)

    def __call__(self, images: ImageInput | Iterable[ImageInput]) -> list[list[Prediction]]:
        """Label images.

        Args:
            images: one image or several.

        Returns:
            For each image a list of all labels with their scores, best first.

        Raises:
            ImageError: an image cannot be read; the message says which one.
            NonFiniteError: the model's output is not finite.
        """
        return [ranked(self.labels, row) for row in self.scores(self.embedder.images(images))]

    def stream(self, images: Iterable[ImageInput]) -> Iterator[Classified | Failed]:
        """Label any number of images, in order; broken images do not stop the stream."""
        return mapped(
            self.embedder.stream(images),
            lambda item: Classified(item.index, ranked(self.labels, self.scores(item.vector[None])[0])),
        )

    def stream_logits(self, images: Iterable[ImageInput]) -> Iterator[Embedded | Failed]:
        """The logits (C,) of any number of images, in order; broken images do not stop the stream."""
        return mapped(
            self.embedder.stream(images), lambda item: Embedded(item.index, self.logits(item.vector[None])[0])
        )

    def scores(self, image_embeds: np.ndarray) -> np.ndarray:
        """Scores (B, C) float32 of unit-length embeddings (B, P), in the order of `labels`."""
        if self.score == "cosine":
            return image_embeds @ self.label_embeddings.T
        logits = self.logits(image_embeds)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    def logits(self, image_embeds: np.ndarray) -> np.ndarray:
        """Logits (B, C) float32 of unit-length embeddings (B, P)."""
        return self._factor * (image_embeds @ self.label_embeddings.T)

    def _embed_labels(
        self, templates: list[str], fill: Callable[[str, str], str], on_event: OnEvent
    ) -> np.ndarray:
        """The mean of each label's unit-length prompt embeddings, to unit length again."""
        means, cut = [], CutTexts("label")
        step = max(1, TEXTS // len(templates))  # labels in a batch
        on_event(Progress(STAGE, 0, len(self.texts), STAGE))
        for start in range(0, len(self.texts), step):
            texts = self.texts[start : start + step]
            prompts = [fill(template, text) for text in texts for template in templates]
            cut_prompts: set[int] = set()
            results = self.embedder.stream_texts(prompts, cut_prompts.add)
            names = [f"the prompt {prompt!r}" for prompt in prompts]
            rows = [item.vector for item in require(results, names.__getitem__)]
            for number in sorted({prompt // len(templates) for prompt in cut_prompts}):
                cut.add(f"the label {shortened(texts[number])}")
            means.append(np.stack(rows).reshape(len(texts), len(templates), -1).mean(axis=1))
            on_event(Progress(STAGE, start + len(texts), len(self.texts), STAGE))
        for notice in cut.notices():
            on_event(notice)
        mean = np.concatenate(means)  # (C, P)
        lengths = np.linalg.norm(mean, axis=1, keepdims=True)
        if not lengths.all():
            label = self.labels[int(np.argmin(lengths))]
            raise NonFiniteError(f"the templates of the label {label!r} cancel out: give it other ones")
        return mean / lengths


def check_request(
    labels: Labels, templates: Sequence[str] | None, score: str, background: str | None = None
) -> tuple[dict[str, str], list[str]]:
    """The texts of all labels by name, and the templates, after all checks that need no model."""
    names = [labels] if isinstance(labels, str) else list(labels)
    texts = dict(labels) if isinstance(labels, Mapping) else {}
    if background is not None:
        names.append(background)
    if not names:
        raise InputError("no labels: give at least two, such as 'a dog,a cat'")
    seen = set()
    for name in names:
        for label in (name, texts.get(name, name) if texts else name):
            if not isinstance(label, str) or not label.strip():
                raise InputError(f"a label must be a text, not {label!r}")
        if name in seen:
            raise InputError(f"the label {name!r} is given twice")
        seen.add(name)
    if score not in SCORES:
        raise InputError(f"score {score!r} is not one of {', '.join(SCORES)}")
    if score == "softmax" and len(names) == 1:
        raise InputError(
            "a softmax over one label is 1 whatever the image shows",
            Advice("give another label, such as 'something else', or {}", "score", "cosine"),
        )
    sentences = check_templates(DEFAULT_TEMPLATES if templates is None else templates)
    return {name: texts.get(name, name) for name in names}, sentences


def fill_template(template: str, label: str) -> str:
    """A template with a label in it; the article of a label ("a dog") replaces the article of the template."""
    return (OPEN_ARTICLE.sub("", template) if ARTICLE.match(label) else template).replace("{}", label)


def check_templates(templates: Sequence[str]) -> list[str]:
    """The templates; raise InputError if there are none, or one lacks `{}`."""
    if isinstance(templates, str):
        templates = [templates]
    if not templates:
        raise InputError("no templates: give at least one, such as 'a photo of a {}.'")
    for template in templates:
        if not isinstance(template, str) or "{}" not in template:
            raise InputError(f"the template {template!r} has no {{}} for the label to go into")
    return list(templates)
