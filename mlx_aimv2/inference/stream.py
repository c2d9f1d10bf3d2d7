"""Any number of images through a model, in order: decoded ahead, in batches of one size, each evaluated once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from ..backend.device import on_cpu
from ..backend.threads import check_process, computing
from ..errors import Advice, Aimv2Error, InputError, NonFiniteError
from ..processing.decode import ImageInput
from ..processing.processor import Processor, as_items
from ..sources.readahead import Decoded, read_ahead

# Tokens in a batch: enough to fill the device, little enough for its memory. One image of 256 tokens nearly
# fills a CPU, and a batch cannot be interrupted.
CPU_TOKENS, GPU_TOKENS = 512, 16384
BROKEN = 64  # broken images that count as a batch: they are reported without waiting for many good ones
MOST_AHEAD, NATIVE_AHEAD = 256, 16  # decoded images that may wait: 150 MB at 224 pixels, or at 4096 patches
UNIT = (
    0.99,
    1.01,
)  # lengths of what was normalized: a vector of zeros, or too long for float32, becomes shorter
SCALABLE = (1e-12, 1.8e19)  # lengths that can be normalized in float32: the square of a longer one overflows
WINDOW = 4  # batches among which images of equal size are looked for
Compute = Callable[[mx.array], mx.array]  # (B, H, W, 3) to (B, ...)


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


class ImageStream:
    """Runs images through a model, and keeps their order."""

    def __init__(
        self,
        compute: Compute,
        processor: Processor,
        dtype: mx.Dtype,
        batch_size: int | None = None,
        lengths: tuple[float, float] | None = None,
    ) -> None:
        """Get ready; nothing is computed yet.

        Args:
            compute: from a batch of pixels (B, H, W, 3) to its results, row by row.
            processor: from `load`.
            dtype: of the model's weights.
            batch_size: images computed at once; None for what suits the device and the number of patches.
            lengths: the least and the largest length of a vector; others are errors. None for any, as of logits.

        Raises:
            InputError: a batch size under 1.
        """
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        self._compute, self.processor, self.batch_size = compute, processor, batch_size
        self._float16_overflow, self._lengths = dtype == mx.float16, lengths

    def __call__(self, images: Iterable[ImageInput]) -> Iterator[Embedded]:
        """Run any number of images, decoding ahead while the model computes.

        Broken images do not stop it, nor does one that the model makes nothing finite of. Memory stays bounded: a
        few batches are held at a time.

        Args:
            images: a list, any sequence that makes its items when they are asked for, or a generator, which is not
                asked for more than two batches ahead.

        Yields:
            One `Embedded` for every image, in the order of the input.

        Raises:
            InputError: ``images`` is a set or a dictionary.
        """
        reading = read_ahead(as_items(images), self.processor.image_processor, ahead=self._ahead())
        with closing(reading) as decoded:
            window, failure = self._window(decoded)
            while window:
                yield from self._run_window(window)
                if self.processor.image_processor.is_native:
                    mx.clear_cache()  # freed buffers of ever new sizes would pile up on a GPU
                if failure is not None:
                    break
                window, failure = self._window(decoded)
            if failure is not None:
                raise failure

    def _window(self, decoded: Iterator[Decoded]) -> tuple[list[Decoded], Exception | None]:
        """The next few batches' worth of images, and what ended the reading.

        One batch where they have one size, several where sizes vary.
        """
        check_process()  # in a forked child nobody decodes
        batches = WINDOW if self.processor.image_processor.is_native else 1
        window: list[Decoded] = []
        filled = 0.0  # batches that the window's images fill; a broken one takes a place too
        while filled < batches:
            try:
                item = next(decoded, None)
            except Exception as error:  # noqa: BLE001 - raised behind what came before it
                return window, error
            if item is None:
                break
            window.append(item)
            filled += 1 / self._batch_size(item)
        return window, None

    def _batch_size(self, item: Decoded) -> int:
        if self.batch_size is not None:
            return self.batch_size
        if item.pixels is None:
            return BROKEN
        return self._fitting(*item.pixels.shape[:2])

    def _run_window(self, window: list[Decoded]) -> Iterator[Embedded]:
        """Batches of equal shape; results in the order of the input, each as soon as those before it are there."""
        results = {
            item.index: Embedded(item.index, error=item.error) for item in window if item.pixels is None
        }
        waiting = deque(item.index for item in window)
        for batch in self._batches([item for item in window if item.pixels is not None]):
            vectors = self._run_batch(np.stack([item.pixels for item in batch]))  # type: ignore[misc]
            for item, vector in zip(batch, vectors, strict=True):
                results[item.index] = self.checked(item.index, vector)
            while waiting and waiting[0] in results:
                yield results.pop(waiting.popleft())
        for index in waiting:
            yield results.pop(index)

    @computing
    def _run_batch(self, pixels: np.ndarray) -> np.ndarray:
        """The results of pixels (B, H, W, 3), row by row: the one evaluation of a batch."""
        return evaluated(self._compute(mx.array(pixels)))

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

    def checked(self, index: int, vector: np.ndarray) -> Embedded:
        """The result of item ``index``, an error where it is not finite, or has no length that it may have."""
        if not np.isfinite(vector).all():
            problem = "holds NaN or infinity"
        elif self._lengths is not None and not within(vector, self._lengths):
            problem = "is all zeros, or too small or too large for a vector of unit length"
        else:
            return Embedded(index, vector)
        message = f"the model's output {problem}"
        if self._float16_overflow:
            advice = Advice("compute in {}", "dtype", "bfloat16", otherwise="compute in bfloat16")
            return Embedded(index, error=NonFiniteError(message, advice))
        return Embedded(index, error=NonFiniteError(f"{message}: the checkpoint may be damaged"))

    def _ahead(self) -> int:
        """How many images may wait: two batches, of native resolution not more than memory takes easily."""
        if self.processor.image_processor.is_native:
            return NATIVE_AHEAD
        size = self.processor.image_processor.output_size(1, 1)
        batch = self._fitting(*size) if self.batch_size is None else self.batch_size
        return min(2 * batch, MOST_AHEAD)

    def _fitting(self, height: int, width: int) -> int:
        """Images of so many pixels in a batch."""
        budget = CPU_TOKENS if on_cpu() else GPU_TOKENS
        patch = self.processor.image_processor.patch_size
        return max(1, budget // max(1, (height // patch) * (width // patch)))


def within(vectors: np.ndarray, lengths: tuple[float, float]) -> bool:
    """Whether the length of every vector (..., D) lies between two."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=-1)
    return bool(((norms > lengths[0]) & (norms < lengths[1])).all())


def evaluated(x: mx.array) -> np.ndarray:
    """The values of an array that is not computed yet."""
    mx.eval(x)  # by itself, since this lets other threads of Python run
    return np.array(x)
