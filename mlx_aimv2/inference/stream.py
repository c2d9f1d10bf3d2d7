"""Batches of images through a model: decoded ahead, computed in batches of one shape, returned in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

import mlx.core as mx
import numpy as np

from ..backend.device import on_cpu
from ..backend.threads import check_process, computing
from ..errors import Advice, InputError, NonFiniteError
from ..processing.decode import ImageInput
from ..processing.processor import Processor, as_items
from ..sources.readahead import Failed, Loaded, read_ahead

# Tokens in a batch: enough to fill the device, little enough for its memory. One image of 256 tokens nearly
# fills a CPU, and a batch cannot be interrupted.
CPU_TOKENS, GPU_TOKENS = 512, 16384
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


class ImageStream:
    """A model as a function from a stream of images to a stream of vectors, in the same order."""

    def __init__(
        self,
        compute: Compute,
        processor: Processor,
        dtype: mx.Dtype,
        batch_size: int | None = None,
        lengths: tuple[float, float] | None = None,
    ) -> None:
        """Set the options, as for `Embedder`.

        Args:
            compute: from a batch of pixels (B, H, W, 3) to its results, row by row.
            processor: from `load`.
            dtype: of the model's weights.
            batch_size: images in a batch; None for what suits the device and the number of patches.
            lengths: the least and the largest length of a vector; None for no limits, as for logits.
        """
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        self._compute, self.processor, self.batch_size = compute, processor, batch_size
        self._float16_overflow, self._lengths = dtype == mx.float16, lengths

    def __call__(self, images: Iterable[ImageInput]) -> Iterator[Embedded | Failed]:
        """Run any number of images, as `Embedder.stream` documents."""
        reading = read_ahead(as_items(images), self.processor.image_processor, ahead=self._ahead())
        with closing(reading) as decoded:
            failure = None
            while failure is None:
                window, failure = self._window(decoded)
                if not window:
                    break
                yield from self._run_window(window)
                if self.processor.image_processor.is_native:
                    mx.clear_cache()  # freed buffers of ever new sizes would pile up on a GPU
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
            filled += 1 / self._batch_size(item)
        return window, None

    def _batch_size(self, item: Loaded | Failed) -> int:
        if self.batch_size is not None:
            return self.batch_size
        return BROKEN if isinstance(item, Failed) else self._fitting(*item.pixels.shape[:2])

    def _run_window(self, window: list[Loaded | Failed]) -> Iterator[Embedded | Failed]:
        """Results in the order of the input, each as soon as all results before it are known."""
        results: dict[int, Embedded | Failed] = {
            item.index: item for item in window if isinstance(item, Failed)
        }
        waiting = deque(item.index for item in window)
        for batch in self._batches([item for item in window if isinstance(item, Loaded)]):
            vectors = self._run_batch(np.stack([item.pixels for item in batch]))
            for item, vector in zip(batch, vectors, strict=True):
                results[item.index] = self.checked(item.index, vector)
            while waiting and waiting[0] in results:
                yield results.pop(waiting.popleft())
        for index in waiting:
            yield results.pop(index)

    @computing
    def _run_batch(self, pixels: np.ndarray) -> np.ndarray:
        """The results of pixels (B, H, W, 3), row by row: the only evaluation of a batch."""
        return evaluated(self._compute(mx.array(pixels)))

    def _batches(self, items: list[Loaded]) -> list[list[Loaded]]:
        """``items`` in batches of one shape each; the batch with the earliest item comes first."""
        shapes: dict[tuple[int, ...], list[Loaded]] = {}
        for item in items:
            shapes.setdefault(item.pixels.shape, []).append(item)
        batches = []
        for group in shapes.values():
            size = self._batch_size(group[0])
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
        batch = self._fitting(*size) if self.batch_size is None else self.batch_size
        return min(2 * batch, MOST_AHEAD)

    def _fitting(self, height: int, width: int) -> int:
        """The number of images of this size, in pixels, in a batch."""
        budget = CPU_TOKENS if on_cpu() else GPU_TOKENS
        patch = self.processor.image_processor.patch_size
        return max(1, budget // max(1, (height // patch) * (width // patch)))


def evaluated(x: mx.array) -> np.ndarray:
    """The values of a lazy array."""
    mx.eval(x)  # apart from the copy, because this lets other threads of Python run
    return np.array(x)
