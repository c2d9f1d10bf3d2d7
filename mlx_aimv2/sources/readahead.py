"""Pictures decoded ahead of their use, in threads, in order, a bounded number at a time.

Threads are enough: Pillow, which decodes, releases the interpreter lock while it works.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import Aimv2Error

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
    with ThreadPoolExecutor(min(threads, len(items)), "decode") as pool:
        waiting: deque[Future[Decoded]] = deque()
        try:
            for index in range(len(items)):
                waiting.append(pool.submit(_decode_one, items, index, decode))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:  # nobody wants the rest
                future.cancel()


def _decode_one(items: Sequence[Any], index: int, decode: Decode) -> Decoded:
    try:
        return Decoded(index, pixels=decode(items[index]))
    except Aimv2Error as error:
        return Decoded(index, error=error)
