"""Labels for images, from nothing but the labels' words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import Advice, Aimv2Error, InputError, NonFiniteError
from ..events import OnEvent, Progress, warn
from ..loading import AnyModel
from ..models.lit import Aimv2Model
from ..processing.decode import ImageInput
from ..processing.processor import Processor
from .class_names import id_notices, same_notices
from .embedder import TEXTS, CutTexts, Embedder, shortened

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
    """Item ``index`` of the input: its labels with scores, best first, or why there are none."""

    index: int
    predictions: list[Prediction] | None = None
    error: Aimv2Error | None = None


class ZeroShotClassifier:
    """Scores images against labels; the labels are embedded once.

    Attributes:
        labels: the names of the labels, the background last.
        texts: what each of them is called in a prompt.
    """

    def __init__(
        self,
        model: AnyModel,
        processor: Processor,
        labels: Labels,
        templates: Sequence[str] | None = None,
        score: str = "softmax",
        background: str | None = None,
        batch_size: int | None = None,
        on_event: OnEvent = warn,
    ) -> None:
        """Embed the labels.

        Args:
            model: an image-text pair from `load`.
            processor: from `load`.
            labels: what to choose from; each once. A lone text is one label, not its letters. A mapping has the
                names of the labels, such as ids, with what each is called in a prompt: `{"n01855672": "duck"}`.
            templates: sentences with `{}` where the label goes, taken as they are; None for a small set of
                general ones, which leave their article out where a label brings its own ("a dog").
            score: "softmax" for probabilities over the labels, "cosine" for the similarity of each by itself.
            background: a further label that stands for "none of these".
            batch_size: images computed at once; None for what suits the device.
            on_event: called with progress over the labels, and with notices: of labels that look like ids, are the
                same words, or are too long. Without it, notices are Python warnings.

        Raises:
            InputError: the model has no text encoder; no labels, one twice, or an empty one; a template without
                `{}`; an unknown score; or a softmax over a single label, which is 1 whatever the image shows.
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
        fill = fill_template if templates is None else _insert
        self.label_embeddings = self._embed_labels(sentences, fill, on_event)  # (C, P) float32, unit length

    def __call__(self, images: ImageInput | Iterable[ImageInput]) -> list[list[Prediction]]:
        """Label images.

        Args:
            images: one image or several.

        Returns:
            For each image all labels with their scores, best first.

        Raises:
            ImageError: an image cannot be read.
            NonFiniteError: the model's output is not finite.
        """
        return [self._rank(row) for row in self.scores(self.embedder.images(images))]

    def stream(self, images: Iterable[ImageInput]) -> Iterator[Classified]:
        """Label any number of images, in order; broken ones do not stop it."""
        for item in self.embedder.stream(images):
            if item.vector is None:
                yield Classified(item.index, error=item.error)
            else:
                yield Classified(item.index, self._rank(self.scores(item.vector[None])[0]))

    def scores(self, image_embeds: np.ndarray) -> np.ndarray:
        """Scores (B, C) float32 of unit-length embeddings (B, P), in the order of `labels`."""
        if self.score == "cosine":
            return image_embeds @ self.label_embeddings.T
        logits = self.logits(image_embeds)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    def logits(self, image_embeds: np.ndarray) -> np.ndarray:
        """What the softmax is taken of: (B, C) float32 of unit-length embeddings (B, P)."""
        return self._factor * (image_embeds @ self.label_embeddings.T)

    def _rank(self, row: np.ndarray) -> list[Prediction]:
        return [(self.labels[k], float(row[k])) for k in np.argsort(-row, kind="stable")]

    def _embed_labels(
        self, templates: list[str], fill: Callable[[str, str], str], on_event: OnEvent
    ) -> np.ndarray:
        """The mean of each label's unit-length prompt embeddings, to unit length again."""
        means, cut = [], CutTexts("label")
        step = max(1, TEXTS // len(templates))  # labels whose prompts are held at once
        on_event(Progress(STAGE, 0, len(self.texts), STAGE))
        for start in range(0, len(self.texts), step):
            texts = self.texts[start : start + step]
            prompts = [fill(template, text) for text in texts for template in templates]
            cut_prompts: set[int] = set()
            rows = []
            for item in self.embedder.stream_texts(prompts, cut_prompts.add):
                if item.error is not None:
                    raise item.error.at(f"the prompt {prompts[item.index]!r}") from item.error
                rows.append(item.require_vector())
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
    labels: Labels, templates: Sequence[str] | None, score: str, background: str | None
) -> tuple[dict[str, str], list[str]]:
    """The texts of all labels by their names, and the templates; what is wrong is found without a model.

    Raises:
        InputError: as for `ZeroShotClassifier`.
    """
    names = [labels] if isinstance(labels, str) else list(labels)
    texts = dict(labels) if isinstance(labels, Mapping) else {}
    if background is not None:
        names.append(background)
    _check_labels(names)
    _check_labels([texts.get(name, name) for name in names], once=False)
    _check_score(score, len(names))
    every = {name: texts.get(name, name) for name in names}
    return every, check_templates(DEFAULT_TEMPLATES if templates is None else templates)


def fill_template(template: str, label: str) -> str:
    """A template with a label in it; a label with its own article ("a dog") takes the place of the template's."""
    return _insert(OPEN_ARTICLE.sub("", template) if ARTICLE.match(label) else template, label)


def _insert(template: str, label: str) -> str:
    return template.replace("{}", label)


def check_templates(templates: Sequence[str]) -> list[str]:
    """The templates, after making sure that each has a place for a label.

    Raises:
        InputError: there are none, or one lacks `{}`.
    """
    if isinstance(templates, str):
        templates = [templates]
    if not templates:
        raise InputError("no templates: give at least one, such as 'a photo of a {}.'")
    for template in templates:
        if not isinstance(template, str) or "{}" not in template:
            raise InputError(f"the template {template!r} has no {{}} for the label to go into")
    return list(templates)


def _check_labels(labels: Sequence[str], once: bool = True) -> None:
    if not labels:
        raise InputError("no labels: give at least two, such as 'a dog,a cat'")
    seen = set()
    for label in labels:
        if not isinstance(label, str) or not label.strip():
            raise InputError(f"a label must be a text, not {label!r}")
        if once and label in seen:
            raise InputError(f"the label {label!r} is given twice")
        seen.add(label)


def _check_score(score: str, count: int) -> None:
    if score not in SCORES:
        raise InputError(f"score {score!r} is not one of {', '.join(SCORES)}")
    if score == "softmax" and count == 1:
        raise InputError(
            "a softmax over one label is 1 whatever the image shows",
            Advice(
                "give another label, a background label with {}, or ask for the score cosine",
                "none",
                "something else",
                otherwise="give another label",
            ),
        )
