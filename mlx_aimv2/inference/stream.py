"""Batches of images through a model: decoded ahead, computed in batches of one shape, returned in order.

While a GPU computes a batch, the next one is decoded, stacked and started: the GPU never waits for Python.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

import mlx.core as mx
import numpy as np

from ..backend.device import on_cpu
from ..backend.memory import is_out_of_memory
from ..backend.threads import check_process, computing
from ..errors import Advice, ImageError, NonFiniteError
from ..models.vision import Aimv2VisionModel
from ..processing.decode import ImageInput
from ..processing.processor import Processor, as_items
from ..sources.readahead import Failed, Loaded, read_ahead
from .batch_size import BatchSize

BROKEN = 64  # broken images that count as a batch: they are reported without waiting for many good ones
MOST_AHEAD, NATIVE_AHEAD = 256, 16  # decoded images that may wait: 150 MB at 224 pixels, or at 4096 patches
# Lengths of normalized vectors: zeros, or values too large for float32, give a shorter vector.
UNIT = (0.99, 1.01)
SCALABLE = (1e-12, 1.8e19)  # lengths that can be normalized in float32: the square of a longer one overflows
WINDOW = 4  # batches among which images of equal size share a batch
Compute = Callable[[mx.array], mx.array]  # (B, H, W, 3) to (B, ...)


@dataclass(frozen=True)
class Embedded:
    """The vector (D,), or the grid of vectors (h, w, D), of item ``index``."""

    index: int
    vector: np.ndarray
    error: ClassVar[None] = None  # so that every result of a stream can be asked for its error


@dataclass
class _Batch:
    """Images of one size, and their results: known, or still computed, or why there are none.

    Attributes:
        items: the images.
        results: row by row; None if the memory was not enough.
    """

    items: list[Loaded]
    results: np.ndarray | mx.array | Exception | None = None

    def fail(self, error: Exception) -> None:
        """Take an exception for the results."""
        self.results = None if is_out_of_memory(error) else error


class ImageStream:
    """A model as a function from a stream of images to a stream of vectors, in the same order."""

    def __init__(
        self,
        compute: Compute,
        processor: Processor,
        tower: Aimv2VisionModel,
        batch_size: int | None = None,
        lengths: tuple[float, float] | None = None,
    ) -> None:
        """Set the options, as for `Embedder`.

        Args:
            compute: from a batch of pixels (B, H, W, 3) to its results, row by row.
            processor: from `load`.
            tower: the vision encoder that ``compute`` runs.
            batch_size: images in a batch; None for what suits the device, its memory and the number of patches.
            lengths: the least and the largest length of a vector; None for no limits, as for logits.
        """
        self._compute, self.processor, self._lengths = compute, processor, lengths
        self._batch_size = BatchSize(batch_size, tower)
        self._float16_overflow = tower.embeddings.patch_embed.weight.dtype == mx.float16

    def __call__(self, images: Iterable[ImageInput]) -> Iterator[Embedded | Failed]:
        """Run any number of images, as `Embedder.stream` documents."""
        reading = read_ahead(as_items(images), self.processor.image_processor, ahead=self._ahead())
        waiting: dict[int, Embedded | Failed] = {}
        position = 0
        with closing(reading) as decoded:
            for result in self._results(decoded):
                waiting[result.index] = result
                while position in waiting:
                    yield waiting.pop(position)
                    position += 1

    def _results(self, decoded: Iterator[Loaded | Failed]) -> Iterator[Embedded | Failed]:
        """The results of all images, each batch as soon as it is computed, and on a GPU the next one is started."""
        started, failure = deque[_Batch](), None
        while failure is None:
            window, failure = self._window(decoded)
            if not window:
                break
            yield from (item for item in window if isinstance(item, Failed))
            for items in self._batches([item for item in window if isinstance(item, Loaded)]):
                started.append(self._start(items))
                if on_cpu() or len(started) > 1:
                    yield from self._finish(started)
            if self.processor.image_processor.is_native:
                mx.clear_cache()  # freed buffers of ever new sizes would pile up
        while started:
            yield from self._finish(started)
        if failure is not None:
            raise failure

    def _window(self, decoded: Iterator[Loaded | Failed]) -> tuple[list[Loaded | Failed], Exception | None]:
        """The images of the next batch, or of a few batches where sizes vary; and the exception of the reader."""
        check_process()  # in a forked child nobody decodes
        batches = WINDOW if self.processor.image_processor.is_native else 1
        window: list[Loaded | Failed] = []
        filled = 0.0  # batches that the window's images fill; a broken one takes a place too
        while filled < batches:
            try:
                item = next(decoded, None)
            except Exception as error:  # noqa: BLE001 - raised after the results before it
                return window, error
            if item is None:
                break
            window.append(item)
            filled += 1 / self._images_in_batch(item)
        return window, None

    def _images_in_batch(self, item: Loaded | Failed) -> int:
        if isinstance(item, Failed):
            return self._batch_size.chosen or BROKEN
        return self._batch_size.of(*item.pixels.shape[:2])

    @computing
    def _start(self, items: list[Loaded]) -> _Batch:
        """A batch that a GPU begins to compute, and that a CPU has computed."""
        batch = _Batch(items)
        try:
            batch.results = self._compute(mx.array(np.stack([item.pixels for item in items])))
            if on_cpu():
                batch.results = evaluated(batch.results)
            else:
                mx.async_eval(batch.results)
        except Exception as error:  # noqa: BLE001 - raised when its turn has come
            batch.fail(error)
        return batch

    @computing
    def _wait(self, batch: _Batch) -> None:
        """Let a batch be computed to the end."""
        if isinstance(batch.results, mx.array):
            try:
                batch.results = evaluated(batch.results)
            except Exception as error:  # noqa: BLE001 - raised when its turn has come
                batch.fail(error)

    def _finish(self, started: deque[_Batch]) -> list[Embedded | Failed]:
        """The results of the first batch, which is removed; in halves, if the memory was not enough."""
        batch = started.popleft()
        self._wait(batch)
        if isinstance(batch.results, Exception):
            raise batch.results
        if batch.results is None:
            for other in started:  # they hold memory
                self._wait(other)
            mx.clear_cache()
            return self._in_halves(batch.items)
        return [
            self.checked(item.index, vector)
            for item, vector in zip(batch.items, np.asarray(batch.results), strict=True)
        ]

    def _in_halves(self, items: list[Loaded]) -> list[Embedded | Failed]:
        """The results of images that did not fit in memory together; an error for one that does not fit alone."""
        height, width, _ = items[0].pixels.shape
        if len(items) == 1:
            lower = Advice("lower {}", "max_patches") if self.processor.image_processor.is_native else None
            message = f"not enough memory for one image of {width} x {height} pixels"
            return [Failed(items[0].index, ImageError(message, lower))]
        self._batch_size.reduce(len(items), height, width)
        half = len(items) // 2
        parts = [items[start : start + half] for start in range(0, len(items), half)]
        return [result for part in parts for result in self._finish(deque([self._start(part)]))]

    def _batches(self, items: list[Loaded]) -> list[list[Loaded]]:
        """``items`` in batches of one shape each; the batch with the earliest item comes first."""
        shapes: dict[tuple[int, ...], list[Loaded]] = {}
        for item in items:
            shapes.setdefault(item.pixels.shape, []).append(item)
        batches = []
        for group in shapes.values():
            size = self._images_in_batch(group[0])
            batches += [group[start : start + size] for start in range(0, len(group), size)]
        return sorted(batches, key=lambda batch: batch[0].index)

    def checked(self, index: int, vector: np.ndarray) -> Embedded | Failed:
        """The vector of item ``index``, or an error if it is not finite, or of a length that is not allowed."""
        norms = np.linalg.norm(vector.astype(np.float64), axis=-1)
        least, largest = self._lengths or (-np.inf, np.inf)
        if not np.isfinite(vector).all():
            problem = "holds NaN or infinity"
        elif not ((norms > least) & (norms < largest)).all():
            problem = "is all zeros, or too small or too large for a vector of unit length"
        else:
            return Embedded(index, vector)
        message = f"the model's output {problem}"
        if self._float16_overflow:
            advice = Advice("compute in {}", "dtype", "bfloat16", otherwise="compute in bfloat16")
            return Failed(index, NonFiniteError(message, advice))
        return Failed(index, NonFiniteError(f"{message}: the checkpoint may be damaged"))

    def _ahead(self) -> int:
        """How many decoded images may wait: two batches, and fewer at native resolution."""
        if self.processor.image_processor.is_native:
            return NATIVE_AHEAD
        size = self.processor.image_processor.output_size(1, 1)
        return min(2 * self._batch_size.of(*size), MOST_AHEAD)


def evaluated(x: mx.array) -> np.ndarray:
    """The values of a lazy array."""
    mx.eval(x)  # apart from the copy, because this lets other threads of Python run
    return np.array(x)
