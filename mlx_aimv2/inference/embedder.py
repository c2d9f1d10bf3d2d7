"""`Embedder`: images and texts to vectors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any

import mlx.core as mx
import numpy as np

from ..backend.threads import computing
from ..errors import InputError
from ..events import Notice
from ..loading import AnyModel
from ..models.lit import Aimv2Model
from ..models.lit import normalize as unit_length
from ..processing.decode import ImageInput
from ..processing.processor import Processor, as_items, is_sequence
from ..sources.readahead import Failed
from ..vectors.fingerprint import fingerprint_of
from .collect import require
from .pooling import check_pooling, pool
from .stream import SCALABLE, UNIT, Embedded, ImageStream, evaluated

__all__ = ["Embedded", "Embedder"]

TEXTS = 64  # texts in a batch
FEW, SHORT = 5, 60  # truncated texts that are named, and characters of each


class CutTexts:
    """The texts that are longer than the model takes: a notice for each of a few, and one for all others."""

    def __init__(self, kind: str) -> None:
        """Start without texts; ``kind`` is the noun for one of them."""
        self._kind, self._names, self._others = kind, list[str](), 0

    def add(self, name: str) -> None:
        """Add a truncated text by its name."""
        if len(self._names) < FEW:
            self._names.append(name)
        else:
            self._others += 1

    def notices(self) -> list[Notice]:
        """The notices, in the order of the texts."""
        longer = "longer than the model takes: the end does not count"
        lines = [f"{name} is {longer}" for name in self._names]
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
        pooling: the name of the pooling, "auto" resolved.
        fingerprint: checkpoint, revision, dtype, pooling, normalization and preprocessing, as plain values. Vectors
            with different fingerprints must not be compared.
    """

    def __init__(
        self,
        model: AnyModel,
        processor: Processor,
        pooling: str = "auto",
        normalize: bool = True,
        batch_size: int | None = None,
    ) -> None:
        """Set the options; nothing is computed yet.

        Args:
            model: from `load`.
            processor: from `load`.
            pooling: "auto" (the projected embedding of an image-text pair; else the mean of the normed tokens),
                "mean", "max", "head" (the checkpoint's own pooling head) or "tokens" (the grid (h, w, D)).
            normalize: scale every vector to unit length.
            batch_size: images in a batch, which a CPU computes in parts if it is large; None for what suits the
                device, its memory and the number of patches.

        Raises:
            InputError: an unknown pooling, one that the model does not have, or a batch size under 1.
        """
        self.model, self.processor = model, processor
        self.pooling = check_pooling(model, pooling)
        self.normalize = normalize
        lengths = UNIT if normalize else SCALABLE
        self._stream = ImageStream(self._vectors, processor, model.vision, batch_size, lengths)

    @property
    def fingerprint(self) -> dict[str, Any]:  # noqa: D102 - see the class
        settings = self.processor.image_processor.settings()
        return fingerprint_of(getattr(self.model, "origin", None), self.pooling, self.normalize, settings)

    def images(self, images: ImageInput | Iterable[ImageInput]) -> np.ndarray:
        """Embed images; row k belongs to image k.

        Args:
            images: one image or several: paths, bytes, file objects, PIL images, numpy arrays; or a Buffer or Stream
                of mlx-data.

        Returns:
            (N, D) float32; with pooling "tokens" (N, h, w, D).

        Raises:
            ImageError: an image cannot be read; the message says which one.
            InputError: with pooling "tokens", images of different grids: embed them with `stream`.
            NonFiniteError: the model's output is not finite, or has no direction.
        """
        items = as_items(images)
        lone = isinstance(items, Sized) and len(items) == 1
        rows = [item.vector for item in require(self.stream(items), None if lone else "image {}".format)]
        if not rows:
            return np.zeros((0, self.dimension), dtype=np.float32)
        if len({row.shape for row in rows}) > 1:
            raise InputError("images of different sizes have different token grids: embed them one by one")
        return np.stack(rows)

    def stream(self, images: Iterable[ImageInput]) -> Iterator[Embedded | Failed]:
        """Embed any number of images, and decode the next ones while the model computes.

        A broken image, one whose vector is not finite, or one that alone does not fit in memory gives a `Failed`
        with its ``error`` and does not stop the stream. A batch that does not fit in a GPU's memory is halved with a
        warning, and later batches are smaller. Memory stays bounded to a few batches.

        Args:
            images: a list; any sequence that makes its items when they are asked for; or a generator. The generator
                runs in the caller's thread, at most two batches ahead of the batches that are being computed: one
                on a CPU, two on a GPU. Its exception is raised here, after the vectors before it. A Buffer of
                mlx-data is such a sequence, and a Stream such a generator.

        Yields:
            One result for every image, in the order of the input.

        Raises:
            InputError: ``images`` is a set or a dictionary.
        """
        return self._stream(images)

    def texts(self, texts: str | Iterable[str]) -> np.ndarray:
        """Embed texts into the space of the images; row k belongs to text k.

        Returns:
            (N, P) float32.

        Raises:
            InputError: the model has no text encoder, or an item is not a text.
            NonFiniteError: the model's output is not finite, or has no direction.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        results = require(self.stream_texts(texts), None if len(texts) == 1 else "text {}".format)
        rows = [item.vector for item in results]
        return np.stack(rows) if rows else np.zeros((0, self._pair().config.projection_dim), dtype=np.float32)

    def stream_texts(
        self, texts: str | Iterable[str], on_cut: Callable[[int], None] | None = None
    ) -> Iterator[Embedded | Failed]:
        """Embed any number of texts, in order; a text longer than the model takes is truncated.

        Args:
            texts: the texts; a generator is read 64 texts at a time.
            on_cut: called with the number of each truncated text; without it, warnings name them in the end.

        Raises:
            InputError: the model has no text encoder, or an item is not a text.
        """
        model = self._pair()
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
            for row, vector in enumerate(self._text_vectors(model, encoding.input_ids)):
                yield self._stream.checked(start + row, vector)
            start += len(batch)
        for notice in cut.notices():
            warnings.warn(notice.message, stacklevel=2)

    @computing
    def _text_vectors(self, model: Aimv2Model, input_ids: np.ndarray) -> np.ndarray:
        # without a mask: in a causal model no real token can see the padding on its right
        return evaluated(self._scaled(model.get_text_features(mx.array(input_ids))))

    def _pair(self) -> Aimv2Model:
        if not isinstance(self.model, Aimv2Model):
            raise InputError("this model has no text encoder: use the image-text pair lit")
        return self.model

    @property
    def dimension(self) -> int:
        """D, the length of an image's vector."""
        if self.pooling == "projected":
            return self._pair().config.projection_dim
        return self.model.config.vision.hidden_size

    def _vectors(self, pixel_values: mx.array) -> mx.array:
        return self._scaled(pool(self.model, pixel_values, self.pooling))

    def _scaled(self, features: mx.array) -> mx.array:
        return unit_length(features) if self.normalize else features


def _check_texts(texts: Iterable[object], start: int) -> None:
    for index, text in enumerate(texts, start):
        if not isinstance(text, str):
            raise InputError(f"texts[{index}] must be a str, not {type(text).__name__}")
