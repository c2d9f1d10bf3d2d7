"""How well captions find their images, and images their captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, NonFiniteError
from ..events import OnEvent, Progress, Skipped, ignore
from ..inference.collect import collect, require
from ..inference.embedder import CutTexts, Embedder, shortened
from ..loading import AnyModel
from ..models.lit import Aimv2Model
from ..processing.processor import Processor

STAGE = "evaluating"
CAPTION, CAPTIONS = "caption", "captions"
KS = (1, 5, 10)
ROWS = 1024  # of the similarities that are held at once
MISTAKES = 100  # of the captions that find their image last, how many are kept

Captions = tuple[str, Sequence[str]]  # an image's path, and its captions


@dataclass(frozen=True)
class Ranks:
    """Where what was looked for stands among all that could be found, from 1.

    Attributes:
        ranks: (N,) of the best right answer to each question. Of equally good answers, wrong ones stand first.
    """

    ranks: np.ndarray

    def recall(self, k: int) -> float:
        """The share of questions with a right answer among the first ``k``."""
        return float((self.ranks <= k).mean())

    @property
    def median(self) -> float:
        """The median of all ranks."""
        return float(np.median(self.ranks))


@dataclass(frozen=True)
class RetrievalMetrics:
    """Retrieval in both directions. Captions that are the same are one, which all their images are right for.

    Attributes:
        image_to_text: an image is asked for its captions, any of which is right, among all different ones.
        text_to_image: a caption is asked for its image among all.
    """

    image_to_text: Ranks
    text_to_image: Ranks

    def to_dict(self) -> dict[str, Any]:
        """Counts, recalls as fractions (`recall@k` is the mean of both directions), and median ranks."""
        return {
            "images": len(self.image_to_text.ranks),
            "captions": len(self.text_to_image.ranks),
            **self.numbers(),
        }

    def numbers(self) -> dict[str, float]:
        """Recalls as fractions, and median ranks."""
        both = {"image_to_text": self.image_to_text, "text_to_image": self.text_to_image}
        recalls = {f"{way}_recall@{k}": ranks.recall(k) for way, ranks in both.items() for k in KS}
        means = {f"recall@{k}": sum(ranks.recall(k) for ranks in both.values()) / 2 for k in KS}
        return {**means, **recalls, **{f"{way}_median_rank": ranks.median for way, ranks in both.items()}}

    def rows(self) -> list[tuple[str, str]]:
        """The numbers as a table: what, and how much."""
        shown = [("images", f"{len(self.image_to_text.ranks):,}")]
        shown.append(("different captions", f"{len(self.text_to_image.ranks):,}"))
        both = (("image to text", self.image_to_text), ("text to image", self.text_to_image))
        for words, ranks in both:
            shown += [(f"{words} recall@{k}", f"{ranks.recall(k):.2%}") for k in KS]
        return shown + [(f"{words} median rank", f"{ranks.median:g}") for words, ranks in both]


@dataclass(frozen=True)
class Miss:
    """A caption that found another image than its own.

    Attributes:
        caption: what was looked for.
        path: the image that it belongs to; the first, where it belongs to several.
        found: the image that it found.
        rank: of the best image that it belongs to.
    """

    caption: str
    path: str
    found: str
    rank: int


@dataclass(frozen=True)
class RetrievalEvaluation:
    """How well a pair retrieves on some images with captions.

    Attributes:
        metrics: the numbers.
        skipped: images that could not be read, and why; they and their captions count nowhere.
        mistakes: the captions that found their image last, the worst first.
    """

    metrics: RetrievalMetrics
    skipped: tuple[Skipped, ...] = ()
    mistakes: tuple[Miss, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON; the metrics stand at the top."""
        return {
            **self.metrics.to_dict(),
            "mistakes": [dict(vars(each)) for each in self.mistakes],
            "skipped": [{"path": each.source, "reason": each.reason} for each in self.skipped],
        }

    def charts(self) -> dict[str, bytes]:
        """No PNG files."""
        return {}


@dataclass(frozen=True)
class Found:
    """What `retrieve` found.

    Attributes:
        metrics: the numbers.
        best: (M,) the image most like each text.
    """

    metrics: RetrievalMetrics
    best: np.ndarray


def retrieve(image_embeds: np.ndarray, text_embeds: np.ndarray, belonging: Sequence[Sequence[int]]) -> Found:
    """Look for texts with images, and for images with texts.

    Args:
        image_embeds: (N, P) of unit length.
        text_embeds: (M, P) of unit length, of different texts, each belonging to an image.
        belonging: for each image the numbers of its texts.

    Raises:
        InputError: counts that do not fit, or nothing to look for.
        NonFiniteError: an embedding is NaN or infinity.
    """
    if len(belonging) != len(image_embeds) or not len(belonging) or not all(belonging):
        raise InputError(f"{len(image_embeds)} images need a caption each, and at least one of each")
    for embeds in (image_embeds, text_embeds):
        if not np.isfinite(embeds).all():
            raise NonFiniteError("the embeddings hold NaN or infinity")
    images = np.repeat(np.arange(len(belonging)), [len(texts) for texts in belonging])
    texts = np.concatenate([np.asarray(one) for one in belonging])
    if set(texts.tolist()) != set(range(len(text_embeds))):
        raise InputError(f"the {len(text_embeds)} texts have to belong to an image each")
    of_images, _ = _ranks(image_embeds, text_embeds, images, texts)
    of_texts, best = _ranks(text_embeds, image_embeds, texts, images)
    return Found(RetrievalMetrics(Ranks(of_images), Ranks(of_texts)), best)


def _ranks(
    asked: np.ndarray, answers: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of each question (N, P) the rank of the best right answer (M, P), and the best answer of all.

    Right are those of the pairs of ``rows`` and ``columns``.
    """
    order = np.argsort(rows, kind="stable")
    rows, columns = rows[order], columns[order]
    ranks, best = [], []
    for start in range(0, len(asked), ROWS):
        scores = asked[start : start + ROWS] @ answers.T  # (rows, M)
        first, last = np.searchsorted(rows, (start, start + len(scores)))
        right = np.zeros(scores.shape, dtype=bool)
        right[rows[first:last] - start, columns[first:last]] = True
        own = np.where(right, scores, -np.inf).max(axis=1)
        ranks.append(1 + ((scores >= own[:, None]) & ~right).sum(axis=1))
        best.append(scores.argmax(axis=1))
    return np.concatenate(ranks), np.concatenate(best)


def numbered(captions: Sequence[Sequence[str]]) -> tuple[list[str], list[list[int]]]:
    """The different captions of all images, and for each image the numbers of its own."""
    numbers: dict[str, int] = {}
    belonging = [
        [numbers.setdefault(caption, len(numbers)) for caption in dict.fromkeys(one)] for one in captions
    ]
    return list(numbers), belonging


def evaluate_retrieval(
    model: AnyModel,
    processor: Processor,
    examples: Sequence[Captions],
    *,
    batch_size: int | None = None,
    on_event: OnEvent = ignore,
) -> RetrievalEvaluation:
    """Measure how well captions and images find each other.

    Args:
        model: an image-text pair from `load`.
        processor: from `load`.
        examples: paths of images, each with its captions.
        batch_size: images computed at once; None for what suits the device.
        on_event: called with progress, and the images that cannot be read.

    Raises:
        InputError: the model has no text encoder; no examples, or none that can be read.
        NonFiniteError: the model gives NaN or infinity.
    """
    if not isinstance(model, Aimv2Model):
        raise InputError("this model has no text encoder, which captions need: use the image-text pair lit")
    if not examples:
        raise InputError("there are no images to evaluate")
    embedder = Embedder(model, processor, batch_size=batch_size)
    paths = [path for path, _ in examples]
    collected = collect(embedder.stream(paths), paths, STAGE, on_event)
    good = [examples[k] for k in collected.indices]
    texts, belonging = numbered([captions for _, captions in good])
    found = retrieve(collected.vectors, _embedded(embedder, texts, on_event), belonging)
    return RetrievalEvaluation(
        found.metrics, collected.skipped, _misses(found, texts, belonging, [path for path, _ in good])
    )


def _embedded(embedder: Embedder, captions: Sequence[str], on_event: OnEvent) -> np.ndarray:
    """The embeddings (M, P) of captions; those that are cut are named."""
    cut, rows = CutTexts(CAPTION), []
    on_event(Progress(CAPTIONS, 0, len(captions), CAPTIONS))
    results = embedder.stream_texts(captions, lambda k: cut.add(f"the {CAPTION} {shortened(captions[k])}"))
    for item in require(results, lambda k: f"the {CAPTION} {captions[k]!r}"):
        rows.append(item.vector)
        on_event(Progress(CAPTIONS, len(rows), len(captions), CAPTIONS))
    for notice in cut.notices():
        on_event(notice)
    return np.stack(rows)


def _misses(
    found: Found, texts: Sequence[str], belonging: Sequence[Sequence[int]], paths: Sequence[str]
) -> tuple[Miss, ...]:
    owner: dict[int, int] = {}
    for image, numbers in enumerate(belonging):
        for number in numbers:
            owner.setdefault(number, image)
    ranks = found.metrics.text_to_image.ranks
    worst = [int(k) for k in np.argsort(-ranks, kind="stable")[:MISTAKES] if ranks[k] > 1]
    return tuple(Miss(texts[k], paths[owner[k]], paths[int(found.best[k])], int(ranks[k])) for k in worst)
