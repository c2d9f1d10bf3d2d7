"""Pictures decoded ahead of their use, in threads, in order, a bounded number at a time.

mlx-data runs the threads and keeps the order. Its own resize differs from Pillow's, so the function it runs is
ours, which decodes with Pillow; Pillow releases the interpreter lock while it works.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import Aimv2Error
from ..models.backend import restore_blas_threads

DEFAULT_THREADS = max(1, min(8, os.cpu_count() or 1))
Decode = Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Decoded:
    """Item ``index`` of the input: its pixels (H, W, 3) float32, or why there are none."""

    index: int
    pixels: np.ndarray | None = None
    error: Aimv2Error | None = None


def read_ahead(
    items: Sequence[Any], decode: Decode, threads: int = DEFAULT_THREADS, ahead: int = 16
) -> Generator[Decoded, None, None]:
    """Decode ``items`` in order.

    Args:
        items: whatever ``decode`` takes.
        decode: from an item to (H, W, 3) float32 pixels; what it raises of this package's errors becomes the
            item's result, anything else is raised here.
        threads: how many items are decoded at once.
        ahead: how many decoded items may wait.

    Yields:
        One `Decoded` for every item, in the order of the items.
    """
    if len(items) == 1:  # threads would only cost time
        yield _decode_one(items, 0, decode)
        return
    if not items:
        return
    import mlx.data as dx

    failures: dict[int, Exception] = {}
    unwanted = threading.Event()  # what is still in the queue need not be decoded

    def transform(index: np.ndarray) -> np.ndarray:
        restore_blas_threads()
        if unwanted.is_set():
            return np.zeros((1, 1, 1), dtype=np.float32)
        try:
            return np.array(decode(items[int(index)]))  # a copy: a read-only array crashes mlx-data
        except Exception as error:  # noqa: BLE001 - carried over to the caller's thread
            failures[int(index)] = error
            return np.zeros((1, 1, 1), dtype=np.float32)

    buffer = dx.buffer_from_vector(  # type: ignore[attr-defined]
        [{"index": index} for index in range(len(items))]
    )
    ahead = min(ahead, len(items))  # with more, mlx-data fetches every item again
    stream = [iter(buffer.key_transform("index", transform, "pixels").ordered_prefetch(ahead, threads))]
    atexit.register(stream.clear)  # a thread that still decodes when the interpreter goes away crashes it
    try:
        for position in range(len(items)):
            sample = next(stream[0])
            restore_blas_threads()
            error = failures.pop(position, None)
            if error is None:
                yield Decoded(position, pixels=sample["pixels"])
            elif isinstance(error, Aimv2Error):
                yield Decoded(position, error=error)
            else:
                raise error
    finally:
        unwanted.set()
        stream.clear()  # waits for the threads
        atexit.unregister(stream.clear)
        restore_blas_threads()


def _decode_one(items: Sequence[Any], index: int, decode: Decode) -> Decoded:
    try:
        return Decoded(index, pixels=decode(items[index]))
    except Aimv2Error as error:
        return Decoded(index, error=error)
