"""Images and texts to vectors, one or a hundred thousand."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import asdict
from itertools import islice
from typing import Any

import mlx.core as mx
import numpy as np

from ..backend.threads import computing
from ..errors import ImageError, InputError, NonFiniteError
from ..events import Notice
from ..loading import AnyModel
from ..models.lit import Aimv2Model
from ..models.lit import normalize as unit_length
from ..processing.decode import ImageInput
from ..processing.processor import Processor, as_items, is_sequence
from .pooling import check_pooling, pool
from .stream import SCALABLE, UNIT, Embedded, ImageStream, evaluated

__all__ = ["Embedded", "Embedder"]

TEXTS = 64  # texts in a batch
FEW, SHORT = 5, 60  # texts that were cut and are named, and characters of each


class CutTexts:
    """Says which texts are longer than the model takes: a line for each of a few, and one for all others."""

    def __init__(self, kind: str) -> None:
        """Begin; ``kind`` is what one of them is called."""
        self._kind, self._named, self._others = kind, list[str](), 0

    def add(self, name: str) -> None:
        """Take in a text that was cut, by what it is called."""
        if len(self._named) < FEW:
            self._named.append(name)
        else:
            self._others += 1

    def notices(self) -> list[Notice]:
        """What there is to say."""
        longer = "longer than the model takes: the end does not count"
        lines = [f"{name} is {longer}" for name in self._named]
        if self._others:
            are = f"{self._kind} is" if self._others == 1 else f"{self._kind}s are"
            lines.append(f"{self._others:,} more {are} {longer}")
        return [Notice(line) for line in lines]


def shortened(text: str) -> str:
    """A text in quotation marks, without the end of a long one."""
    return repr(text if len(text) <= SHORT else f"{text[: SHORT - 1]}…")


class Embedder:
    """Vectors of images and texts.

    Attributes:
        pooling: what became of "auto".
        fingerprint: what made the vectors: checkpoint, revision, dtype, pooling, preprocessing. Vectors of
            different fingerprints must not be compared.
    """

    def __init__(
        self,
        model: AnyModel,
        processor: Processor,
        pooling: str = "auto",
        normalize: bool = True,
        batch_size: int | None = None,
    ) -> None:
        """Get ready; nothing is computed yet.

        Args:
            model: from `load`.
            processor: from `load`.
            pooling: "auto" (the projected embedding of an image-text pair; else the mean of the normed tokens),
                "mean", "max", "head" (the checkpoint's own pooling head) or "tokens" (the grid (h, w, D)).
            normalize: scale every vector to unit length.
            batch_size: images computed at once; None for what suits the device and the number of patches.

        Raises:
            InputError: an unknown pooling, one the model cannot do, or a batch size under 1.
        """
        self.model, self.processor = model, processor
        self.pooling = check_pooling(model, pooling)
        self.normalize = normalize
        self._stream = ImageStream(
            self._vectors, processor, _weight_dtype(model), batch_size, UNIT if normalize else SCALABLE
        )

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What made the vectors, as plain values."""
        origin = getattr(self.model, "origin", None)
        settings = self.processor.image_processor.settings()
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
        made_by = asdict(origin) if origin is not None else {"name": "unnamed", "checkpoint": None}
        for name in ("adapter", "image_size"):  # as it was written before there were any
            if made_by.get(name) is None:
                made_by.pop(name, None)
        return {**made_by, "pooling": self.pooling, "normalized": self.normalize, "preprocessing": digest}

    def images(self, images: ImageInput | Iterable[ImageInput]) -> np.ndarray:
        """Embed images; row k is image k.

        Args:
            images: one image or several: paths, bytes, file objects, PIL images, numpy arrays.

        Returns:
            (N, D) float32; with pooling "tokens" (N, h, w, D).

        Raises:
            ImageError: an image cannot be read; its number is named.
            InputError: with pooling "tokens", images of different grids: embed them with `stream`.
            NonFiniteError: the model's output is not finite, or has no direction.
        """
        items = as_items(images)
        rows = _rows(self.stream(items), len(items) if isinstance(items, Sized) else None, "image")
        if not rows:
            return np.zeros((0, self.dimension), dtype=np.float32)
        if len({row.shape for row in rows}) > 1:
            raise InputError("images of different sizes have different token grids: embed them one by one")
        return np.stack(rows)

    def stream(self, images: Iterable[ImageInput]) -> Iterator[Embedded]:
        """Embed any number of images, decoding ahead while the model computes.

        Broken images do not stop it, nor does one that the model makes nothing finite of. Memory stays bounded: a
        few batches are held at a time.

        Args:
            images: a list, any sequence that makes its items when they are asked for, or a generator. That is read
                in the thread that asks for vectors, two batches ahead at most; what it raises is raised here, behind
                the vectors before it.

        Yields:
            One `Embedded` for every image, in the order of the input.

        Raises:
            InputError: ``images`` is a set or a dictionary.
        """
        return self._stream(images)

    def texts(self, texts: str | Iterable[str]) -> np.ndarray:
        """Embed texts into the space of the images; row k is text k.

        Returns:
            (N, P) float32.

        Raises:
            InputError: the model has no text encoder, or an item is no text.
            NonFiniteError: the model's output is not finite, or has no direction.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        rows = _rows(self.stream_texts(texts), len(texts), "text")
        return np.stack(rows) if rows else np.zeros((0, self._projection_dim()), dtype=np.float32)

    def stream_texts(
        self, texts: str | Iterable[str], on_cut: Callable[[int], None] | None = None
    ) -> Iterator[Embedded]:
        """Embed any number of texts, in order; one longer than the model takes is cut.

        Args:
            texts: the texts; a generator is read 64 texts at a time.
            on_cut: called with the number of each that is cut; without it, warnings name them in the end.

        Raises:
            InputError: the model has no text encoder, or an item is no text.
        """
        model = self.model
        if not isinstance(model, Aimv2Model):
            raise InputError("this model has no text encoder: use the image-text pair lit")
        if is_sequence(texts):
            _check_texts(texts, 0)  # all, before the first is computed
        items = iter([texts] if isinstance(texts, str) else texts)
        cut, start = CutTexts("text"), 0
        while batch := list(islice(items, TEXTS)):
            _check_texts(batch, start)
            encoding = self.processor.encode(batch)
            for number in encoding.truncated:
                if on_cut is None:
                    cut.add(f"text {start + number} ({shortened(batch[number])})")
                else:
                    on_cut(start + number)
            vectors = self._text_vectors(model, encoding.input_ids)
            for row, vector in enumerate(vectors):
                yield self._stream.checked(start + row, vector)
            start += len(batch)
        for notice in cut.notices():
            warnings.warn(notice.message, stacklevel=2)

    @computing
    def _text_vectors(self, model: Aimv2Model, input_ids: np.ndarray) -> np.ndarray:
        # without a mask: in a causal model no real token can see the padding on its right
        return evaluated(self._scaled(model.get_text_features(mx.array(input_ids))))

    def _projection_dim(self) -> int:
        if not isinstance(self.model, Aimv2Model):
            raise InputError("this model has no text encoder: use the image-text pair lit")
        return self.model.config.projection_dim

    @property
    def dimension(self) -> int:
        """D, the length of an image's vector."""
        if self.pooling == "projected":
            return self._projection_dim()
        return self.model.config.vision.hidden_size

    def _vectors(self, pixel_values: mx.array) -> mx.array:
        return self._scaled(pool(self.model, pixel_values, self.pooling))

    def _scaled(self, features: mx.array) -> mx.array:
        return unit_length(features) if self.normalize else features


def _weight_dtype(model: AnyModel) -> mx.Dtype:
    return model.vision.embeddings.patch_embed.weight.dtype


def _check_texts(texts: Iterable[object], start: int) -> None:
    for index, text in enumerate(texts, start):
        if not isinstance(text, str):
            raise InputError(f"texts[{index}] must be a str, not {type(text).__name__}")


def _rows(results: Iterator[Embedded], count: int | None, what: str) -> list[np.ndarray]:
    """All vectors; the first item that has none is raised, with its number."""
    rows = []
    for result in results:
        error = result.error
        if count != 1 and isinstance(error, (ImageError, NonFiniteError)):
            raise error.at(f"{what} {result.index}") from error
        rows.append(result.require_vector())
    return rows
