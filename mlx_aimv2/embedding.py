"""Pictures and texts to vectors, one or a hundred thousand."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from .errors import Aimv2Error, ImageError, InputError, NonFiniteError
from .loading import AnyModel
from .models.backend import on_cpu
from .models.lit import Aimv2Model
from .models.lit import normalize as unit_length
from .pooling import check_pooling, pool
from .processing.decode import ImageInput
from .processing.processor import Processor, as_sequence
from .sources.readahead import Decoded, read_ahead

# Tokens in a batch: enough to fill the device, little enough for its memory. One picture of 256 tokens nearly
# fills a CPU, and a batch cannot be interrupted.
CPU_TOKENS, GPU_TOKENS = 512, 16384
TEXTS = 64  # texts in a batch
BROKEN = 64  # broken pictures that count as a batch: they are reported without waiting for many good ones
MOST_AHEAD, NATIVE_AHEAD = 256, 16  # decoded pictures that may wait: 150 MB at 224 pixels, or at 4096 patches
WINDOW = 4  # batches among which pictures of equal size are looked for


@dataclass(frozen=True)
class Embedded:
    """Item ``index`` of the input: its vector (or grid of vectors), or why there is none."""

    index: int
    vector: np.ndarray | None = None
    error: Aimv2Error | None = None

    def require_vector(self) -> np.ndarray:
        """The vector.

        Raises:
            Aimv2Error: why there is none.
        """
        if self.vector is None:
            raise self.error or InputError(f"item {self.index} has no vector")
        return self.vector


class Embedder:
    """Vectors of pictures and texts.

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
            batch_size: pictures computed at once; None for what suits the device and the number of patches.

        Raises:
            InputError: an unknown pooling, one the model cannot do, or a batch size under 1.
        """
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        self.model, self.processor = model, processor
        self.pooling = check_pooling(model, pooling)
        self.normalize = normalize
        self.batch_size = batch_size
        self._float16_overflow = _weight_dtype(model) == mx.float16

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What made the vectors, as plain values."""
        origin = getattr(self.model, "origin", None)
        settings = self.processor.image_processor.settings()
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
        made_by = asdict(origin) if origin is not None else {"name": "unnamed", "checkpoint": None}
        return {**made_by, "pooling": self.pooling, "normalized": self.normalize, "preprocessing": digest}

    def images(self, images: ImageInput | Sequence[ImageInput]) -> np.ndarray:
        """Embed pictures; row k is picture k.

        Args:
            images: one picture or several: paths, bytes, file objects, PIL images, numpy arrays.

        Returns:
            (N, D) float32; with pooling "tokens" (N, h, w, D).

        Raises:
            ImageError: a picture cannot be read; its number is named.
            InputError: with pooling "tokens", pictures of different grids: embed them with `stream`.
            NonFiniteError: the model's output is not finite.
        """
        items = as_sequence(images)
        rows = _rows(self.stream(items), len(items), "picture")
        if not rows:
            return np.zeros((0, self.dimension), dtype=np.float32)
        if len({row.shape for row in rows}) > 1:
            raise InputError("pictures of different sizes have different token grids: embed them one by one")
        return np.stack(rows)

    def stream(self, images: Sequence[ImageInput]) -> Iterator[Embedded]:
        """Embed any number of pictures, decoding ahead while the model computes.

        Broken pictures do not stop it, nor does one that the model makes nothing finite of. Memory stays bounded: a
        few batches are held at a time.

        Args:
            images: a list, or any sequence that makes its items when they are asked for.

        Yields:
            One `Embedded` for every picture, in the order of the input.

        Raises:
            InputError: ``images`` is no sequence, such as a generator.
        """
        items = as_sequence(images)
        decoded = read_ahead(items, self.processor.image_processor, ahead=self._ahead())
        while window := self._window(decoded):
            yield from self._embed_window(window)
            if self.processor.image_processor.is_native:
                mx.clear_cache()  # freed buffers of ever new sizes would pile up on a GPU

    def texts(self, texts: str | Sequence[str]) -> np.ndarray:
        """Embed texts into the space of the pictures; row k is text k.

        Returns:
            (N, P) float32.

        Raises:
            InputError: the model has no text encoder, or an item is no text.
            NonFiniteError: the model's output is not finite.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        rows = _rows(self.stream_texts(texts), len(texts), "text")
        return np.stack(rows) if rows else np.zeros((0, self._projection_dim()), dtype=np.float32)

    def stream_texts(self, texts: Sequence[str]) -> Iterator[Embedded]:
        """Embed any number of texts, in order; one longer than the model takes is cut, with a warning.

        Raises:
            InputError: the model has no text encoder, or an item is no text.
        """
        model = self.model
        if not isinstance(model, Aimv2Model):
            raise InputError("this model has no text encoder: use the image-text pair, --model lit")
        for index, text in enumerate(texts):  # before the batches, whose own numbers would start at 0 again
            if not isinstance(text, str):
                raise InputError(f"texts[{index}] must be a str, not {type(text).__name__}")
        for start in range(0, len(texts), TEXTS):
            encoding = self.processor.encode(texts[start : start + TEXTS])
            for cut in encoding.truncated:
                warnings.warn(f"text {start + cut} is longer than the model takes and was cut", stacklevel=2)
            # without a mask: in a causal model no real token can see the padding on its right
            vectors = self._evaluate(model.get_text_features(mx.array(encoding.input_ids)))
            yield from (self._checked(start + row, vector) for row, vector in enumerate(vectors))

    def _projection_dim(self) -> int:
        if not isinstance(self.model, Aimv2Model):
            raise InputError("this model has no text encoder: use the image-text pair, --model lit")
        return self.model.config.projection_dim

    @property
    def dimension(self) -> int:
        """D, the length of a picture's vector."""
        if isinstance(self.model, Aimv2Model):
            if self.pooling == "projected":
                return self.model.config.projection_dim
            return self.model.config.vision_config.hidden_size
        return self.model.config.hidden_size

    def _window(self, decoded: Iterator[Decoded]) -> list[Decoded]:
        """The next few batches' worth of pictures: one batch of fixed size, several of varying ones."""
        batches = WINDOW if self.processor.image_processor.is_native else 1
        window: list[Decoded] = []
        filled = 0.0  # batches that the window's pictures fill; a broken one takes a place too
        while filled < batches and (item := next(decoded, None)) is not None:
            window.append(item)
            filled += 1 / self._batch_size(item)
        return window

    def _batch_size(self, item: Decoded) -> int:
        if self.batch_size is not None:
            return self.batch_size
        if item.pixels is None:
            return BROKEN
        return self._fitting(*item.pixels.shape[:2])

    def _embed_window(self, window: list[Decoded]) -> Iterator[Embedded]:
        """Batches of equal shape; results in the order of the input, each as soon as those before it are there."""
        results = {
            item.index: Embedded(item.index, error=item.error) for item in window if item.pixels is None
        }
        waiting = deque(item.index for item in window)
        for batch in self._batches([item for item in window if item.pixels is not None]):
            pixels = mx.array(np.stack([item.pixels for item in batch]))  # type: ignore[misc]
            vectors = self._evaluate(pool(self.model, pixels, self.pooling))
            for item, vector in zip(batch, vectors, strict=True):
                results[item.index] = self._checked(item.index, vector)
            while waiting and waiting[0] in results:
                yield results.pop(waiting.popleft())
        for index in waiting:
            yield results.pop(index)

    def _batches(self, items: list[Decoded]) -> list[list[Decoded]]:
        """``items`` in batches of one shape each, those with the earliest item first."""
        shapes: dict[tuple[int, ...], list[Decoded]] = {}
        for item in items:
            shapes.setdefault(item.pixels.shape, []).append(item)  # type: ignore[union-attr]
        batches = []
        for group in shapes.values():
            size = self._batch_size(group[0])
            batches += [group[start : start + size] for start in range(0, len(group), size)]
        return sorted(batches, key=lambda batch: batch[0].index)

    def _evaluate(self, features: mx.array) -> np.ndarray:
        """The one evaluation of a batch."""
        features = unit_length(features) if self.normalize else features
        mx.eval(features)  # by itself, since this lets other threads of Python run
        return np.array(features)

    def _checked(self, index: int, vector: np.ndarray) -> Embedded:
        if np.isfinite(vector).all():
            return Embedded(index, vector)
        advice = "compute in --dtype bfloat16" if self._float16_overflow else "the checkpoint may be damaged"
        return Embedded(index, error=NonFiniteError(f"the model's output holds NaN or infinity: {advice}"))

    def _ahead(self) -> int:
        """How many pictures may wait: two batches, of native resolution not more than memory takes easily."""
        if self.processor.image_processor.is_native:
            return NATIVE_AHEAD
        size = self.processor.image_processor.output_size(1, 1)
        batch = self._fitting(*size) if self.batch_size is None else self.batch_size
        return min(2 * batch, MOST_AHEAD)

    def _fitting(self, height: int, width: int) -> int:
        """Pictures of so many pixels in a batch."""
        budget = CPU_TOKENS if on_cpu() else GPU_TOKENS
        patch = self.processor.image_processor.patch_size
        return max(1, budget // max(1, (height // patch) * (width // patch)))


def _weight_dtype(model: AnyModel) -> mx.Dtype:
    vision = model.vision_model if isinstance(model, Aimv2Model) else model
    return vision.embeddings.patch_embed.weight.dtype


def _rows(results: Iterator[Embedded], count: int, what: str) -> list[np.ndarray]:
    """All vectors; the first item that has none is raised, with its number."""
    rows = []
    for result in results:
        error = result.error
        if count > 1 and isinstance(error, (ImageError, NonFiniteError)):
            raise type(error)(f"{what} {result.index}: {error}") from error
        rows.append(result.require_vector())
    return rows
