"""Images decoded ahead of their use, in threads, in order, a bounded number at a time.

Threads are enough: Pillow, which decodes, releases the interpreter lock while it works.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ..errors import Aimv2Error, ForkedProcessError
from ..processing.processor import is_sequence

DEFAULT_THREADS = max(1, min(8, os.cpu_count() or 1))
Decode = Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Decoded:
    """Item ``index`` of the input: its pixels (H, W, 3) float32, or why there are none."""

    index: int
    pixels: np.ndarray | None = None
    error: Aimv2Error | None = None


def read_ahead(
    items: Iterable[Any], decode: Decode, threads: int = DEFAULT_THREADS, ahead: int = 16
) -> Generator[Decoded, None, None]:
    """Decode ``items`` in order.

    Args:
        items: whatever ``decode`` takes. A sequence makes its items in the threads; anything else, such as a
            generator, in the thread that asks for results, and never more than ``ahead`` + 1 of them before the
            first of those is asked for. What it raises is raised here, after the results before it.
        decode: from an item to (H, W, 3) float32 pixels; what it raises of this package's errors becomes the
            item's result, anything else is raised here.
        threads: how many items are decoded at once.
        ahead: how many decoded items may wait.

    Yields:
        One `Decoded` for every item, in the order of the items.

    Raises:
        ForkedProcessError: the process was forked since the first result: its threads are the parent's.
    """
    if is_sequence(items):
        items = cast("Sequence[Any]", items)
        if len(items) == 1:  # threads would only cost time
            yield _decode_one(items.__getitem__, 0, decode)
        if len(items) < 2:
            return
        threads = min(threads, len(items))
    process = os.getpid()
    with ThreadPoolExecutor(threads, "decode") as pool:
        waiting: deque[Future[Decoded]] = deque()
        places, failure = _places(items), None
        try:
            while True:
                try:
                    place = next(places, None)
                except Exception as error:  # noqa: BLE001 - raised below, behind what came before it
                    place, failure = None, error
                if place is None:
                    break
                waiting.append(_submitted(pool, place[1], place[0], decode))
                if len(waiting) > ahead:
                    yield _result(waiting, process)
            while waiting:
                yield _result(waiting, process)
            if failure is not None:
                raise failure
        finally:
            for future in waiting:  # nobody wants the rest
                future.cancel()


def _submitted(
    pool: ThreadPoolExecutor, item: Callable[[int], Any], index: int, decode: Decode
) -> Future[Decoded]:
    try:
        return pool.submit(_decode_one, item, index, decode)
    except (
        RuntimeError
    ):  # the main thread has ended, and Python starts no more work in pools; this thread goes on
        future: Future[Decoded] = Future()
        future.set_result(_decode_one(item, index, decode))
        return future


def _places(items: Iterable[Any]) -> Iterator[tuple[int, Callable[[int], Any]]]:
    """The number of every item, and what makes the item of it."""
    if is_sequence(items):
        items = cast("Sequence[Any]", items)
        yield from ((index, items.__getitem__) for index in range(len(items)))
    else:
        yield from ((index, lambda _, item=item: item) for index, item in enumerate(items))


def _result(waiting: deque[Future[Decoded]], process: int) -> Decoded:
    if os.getpid() != process:
        raise ForkedProcessError(
            "images were being read when this process was forked: begin anew in the child"
        )
    return waiting.popleft().result()


def _decode_one(item: Callable[[int], Any], index: int, decode: Decode) -> Decoded:
    try:
        return Decoded(index, pixels=decode(item(index)))
    except Aimv2Error as error:
        return Decoded(index, error=error)
