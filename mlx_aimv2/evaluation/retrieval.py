"""Evaluation of image-text retrieval: how well captions find their images, and images their captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, NonFiniteError
from ..events import OnEvent, Progress, Skipped, warn
from ..inference.collect import collect, require
from ..inference.embedder import CutTexts, Embedder, shortened
from ..loading import AnyModel
from ..models.lit import Aimv2Model
from ..processing.processor import Processor
from ..processing.samples import SampleNames, has_samples, samples_of
from ..processing.source_image import SourceImage, name_of

STAGE = "evaluating"
CAPTION, CAPTIONS = "caption", "captions"
KS = (1, 5, 10)
ROWS = 1024  # of similarities in memory at once
MISTAKES = 100  # captions with the worst ranks that an evaluation keeps

Captions = tuple[str | SourceImage, Sequence[str]]  # the path of an image (or the image), and its captions


@dataclass(frozen=True)
class RetrievalMetrics:
    """Ranks of retrieval in both directions. Equal captions are one caption, which is right for all its images.

    A rank counts from 1; wrong answers of the same similarity come before the right one.

    Attributes:
        image_to_text: (N,) the best rank, for each image, of its captions among all different captions.
        text_to_image: (M,) the best rank, for each different caption, of its images among all images.
    """

    image_to_text: np.ndarray
    text_to_image: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Counts, recalls as fractions (`recall@k` is the mean of both directions), and median ranks."""
        return {"images": len(self.image_to_text), "captions": len(self.text_to_image), **self.numbers()}

    def numbers(self) -> dict[str, float]:
        """Recalls as fractions, and median ranks."""
        ranks = {"image_to_text": self.image_to_text, "text_to_image": self.text_to_image}
        means = {f"recall@{k}": sum(_recall(own, k) for own in ranks.values()) / 2 for k in KS}
        recalls = {f"{way}_recall@{k}": _recall(own, k) for way, own in ranks.items() for k in KS}
        medians = {f"{way}_median_rank": float(np.median(own)) for way, own in ranks.items()}
        return {**means, **recalls, **medians}

    def rows(self) -> list[tuple[str, str]]:
        """A table of the metrics: name and value."""
        ranks = {"image to text": self.image_to_text, "text to image": self.text_to_image}
        return [
            ("images", f"{len(self.image_to_text):,}"),
            ("different captions", f"{len(self.text_to_image):,}"),
            *((f"{way} recall@{k}", f"{_recall(own, k):.2%}") for way, own in ranks.items() for k in KS),
            *((f"{way} median rank", f"{np.median(own):g}") for way, own in ranks.items()),
        ]


def _recall(ranks: np.ndarray, k: int) -> float:
    return float((ranks <= k).mean())


@dataclass(frozen=True)
class Miss:
    """A caption that is most similar to the image of another caption.

    Attributes:
        caption: the caption.
        path: its image; the first, if there are several.
        found: the most similar image.
        rank: the best rank of its images.
    """

    caption: str
    path: str
    found: str
    rank: int


@dataclass(frozen=True)
class RetrievalEvaluation:
    """How well an image-text pair retrieves some images and captions.

    Attributes:
        metrics: the numbers.
        skipped: images that cannot be read, and why; the metrics leave out them and their captions.
        mistakes: the 100 captions with the worst ranks, the worst first.
    """

    metrics: RetrievalMetrics
    skipped: tuple[Skipped, ...] = ()
    mistakes: tuple[Miss, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the metrics at the top."""
        return {
            **self.metrics.to_dict(),
            "mistakes": [dict(vars(each)) for each in self.mistakes],
            "skipped": [{"path": each.source, "reason": each.reason} for each in self.skipped],
        }

    def charts(self) -> dict[str, bytes]:
        """No PNG files."""
        return {}


def evaluate_retrieval(
    model: AnyModel,
    processor: Processor,
    examples: Sequence[Captions],
    *,
    batch_size: int | None = None,
    on_event: OnEvent = warn,
) -> RetrievalEvaluation:
    """Measure how well captions retrieve their images, and images their captions.

    Args:
        model: an image-text pair from `load`.
        processor: from `load`.
        examples: pairs of an image's path (or a `SourceImage`) and its captions, of which there is at least one. Or
            an `mlx.data.Buffer`, whose samples have the keys ``image`` and ``caption`` (a line for each), and perhaps
            ``id``.
        batch_size: images per forward pass; None for what suits the device.
        on_event: called with `Progress`, `Notice` and `Skipped`; by default, notices become Python warnings.

    Returns:
        Recall at 1, 5 and 10 (fractions from 0 to 1) and median ranks in both directions, mistakes, skipped images.

    Raises:
        InputError: the model has no text encoder, there are no examples, none can be read, or one has no caption.
        NonFiniteError: the model's output holds NaN or infinity.
    """
    if not isinstance(model, Aimv2Model):
        raise InputError("this model has no text encoder, which captions need: use the image-text pair lit")
    if not examples:
        raise InputError("there are no images to evaluate")
    embedder = Embedder(model, processor, batch_size=batch_size)
    samples = samples_of(examples) if has_samples(examples) else None
    sources = [image for image, _ in examples] if samples is None else samples
    paths = [name_of(image) for image, _ in examples] if samples is None else SampleNames(samples)
    collected = collect(embedder.stream(sources), paths, STAGE, on_event)
    texts: dict[str, int] = {}  # different captions, numbered
    images: dict[int, int] = {}  # number of a caption -> the first of its images
    texts_of = []
    for image, k in enumerate(collected.indices):
        own = examples[k][1] if samples is None else samples.captions.get(k, ())
        if not own:
            raise InputError(f"{paths[k]} has no caption")
        texts_of.append([texts.setdefault(text, len(texts)) for text in dict.fromkeys(own)])
        for text in texts_of[-1]:
            images.setdefault(text, image)
    text_embeds = _embed_captions(embedder, list(texts), on_event)
    metrics, best = retrieve(collected.vectors, text_embeds, texts_of)
    ranks, captions = metrics.text_to_image, list(texts)
    read = [paths[k] for k in collected.indices]
    mistakes = tuple(
        Miss(captions[k], read[images[k]], read[best[k]], int(ranks[k]))
        for k in np.argsort(-ranks, kind="stable")[:MISTAKES].tolist()
        if ranks[k] > 1
    )
    return RetrievalEvaluation(metrics, collected.skipped, mistakes)


def _embed_captions(embedder: Embedder, captions: Sequence[str], on_event: OnEvent) -> np.ndarray:
    """The embeddings (M, P) of captions; notices name captions that the model takes only the beginning of."""
    cut, rows = CutTexts(CAPTION), []
    on_event(Progress(CAPTIONS, 0, len(captions), CAPTIONS))
    results = embedder.stream_texts(captions, lambda k: cut.add(f"the {CAPTION} {shortened(captions[k])}"))
    for item in require(results, lambda k: f"the {CAPTION} {captions[k]!r}"):
        rows.append(item.vector)
        on_event(Progress(CAPTIONS, len(rows), len(captions), CAPTIONS))
    for notice in cut.notices():
        on_event(notice)
    return np.stack(rows)


def retrieve(
    image_embeds: np.ndarray, text_embeds: np.ndarray, texts_of: Sequence[Sequence[int]]
) -> tuple[RetrievalMetrics, np.ndarray]:
    """Rank texts for images, and images for texts, by cosine similarity.

    Args:
        image_embeds: (N, P) of unit length.
        text_embeds: (M, P) of unit length, of different texts, each of them of an image.
        texts_of: for each image the indices of its texts.

    Returns:
        The metrics, and (M,) the index of the image most similar to each text.

    Raises:
        InputError: counts do not fit, or there are no images.
        NonFiniteError: an embedding holds NaN or infinity.
    """
    if len(texts_of) != len(image_embeds) or not len(texts_of) or not all(texts_of):
        raise InputError(f"{len(image_embeds)} images need a caption each, and at least one of each")
    for embeds in (image_embeds, text_embeds):
        if not np.isfinite(embeds).all():
            raise NonFiniteError("the embeddings hold NaN or infinity")
    images = np.repeat(np.arange(len(texts_of)), [len(own) for own in texts_of])
    texts = np.concatenate([np.asarray(own) for own in texts_of])
    if set(texts.tolist()) != set(range(len(text_embeds))):
        raise InputError(f"the {len(text_embeds)} texts have to belong to an image each")
    image_to_text, _ = _ranks(image_embeds, text_embeds, images, texts)
    text_to_image, best = _ranks(text_embeds, image_embeds, texts, images)
    return RetrievalMetrics(image_to_text, text_to_image), best


def _ranks(
    queries: np.ndarray, answers: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each query (N, P), the rank of its best right answer (M, P), and the index of the most similar answer.

    Answer ``columns[k]`` is right for query ``rows[k]``.
    """
    order = np.argsort(rows, kind="stable")
    rows, columns = rows[order], columns[order]
    ranks, best = [], []
    for start in range(0, len(queries), ROWS):
        scores = queries[start : start + ROWS] @ answers.T  # (rows, M)
        first, last = np.searchsorted(rows, (start, start + len(scores)))
        right = np.zeros(scores.shape, dtype=bool)
        right[rows[first:last] - start, columns[first:last]] = True
        own = np.where(right, scores, -np.inf).max(axis=1)
        ranks.append(1 + ((scores >= own[:, None]) & ~right).sum(axis=1))
        best.append(scores.argmax(axis=1))
    return np.concatenate(ranks), np.concatenate(best)
