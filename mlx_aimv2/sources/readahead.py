"""Decoding of images ahead of their use: in threads, in order, a bounded number at a time.

Threads are enough: Pillow releases the interpreter lock while it decodes.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from ..backend.ranks import ranks_here
from ..errors import Aimv2Error, ForkedProcessError
from ..processing.processor import is_sequence
from ..processing.source_image import SourceImage

DEFAULT_THREADS = max(1, min(8, (os.cpu_count() or 1) // ranks_here()))
# for images that wait for a server: an idle thread costs nothing, a server that is asked much does
WAITING_THREADS = 16
Decode = Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Loaded:
    """The pixels (H, W, 3) float32 of item ``index``."""

    index: int
    pixels: np.ndarray
    error: ClassVar[None] = None  # so that every result of a stream can be asked for its error


@dataclass(frozen=True)
class Failed:
    """The error of item ``index``, which has no result."""

    index: int
    error: Aimv2Error


def read_ahead(
    items: Iterable[Any], decode: Decode, threads: int | None = None, ahead: int = 16
) -> Generator[Loaded | Failed, None, None]:
    """Decode ``items`` in order.

    Args:
        items: whatever ``decode`` takes. The threads fetch the items of a sequence. The caller's thread fetches the
            items of anything else, such as a generator, and never more than ``ahead`` + 1 of them before it asks for
            the first result. An exception of the generator is raised after the results before it.
        decode: from an item to pixels (H, W, 3) float32. An error of this package becomes the item's result; any
            other exception is raised.
        threads: how many items are decoded at once; None for `threads_for`.
        ahead: how many decoded items may wait; with `threads_for` at least one for each thread.

    Yields:
        One result for every item, in the order of the items.

    Raises:
        ForkedProcessError: the process was forked after the first result: the threads belong to the parent.
    """
    if threads is None:
        threads = threads_for(items)
        ahead = max(ahead, threads) if threads > DEFAULT_THREADS else ahead
    sequence = cast("Sequence[Any]", items) if is_sequence(items) else None
    if sequence is not None:
        if len(sequence) == 1:  # threads would only cost time
            yield _decode_one(sequence.__getitem__, 0, decode)
        if len(sequence) < 2:
            return
        threads = min(threads, len(sequence))
    process = os.getpid()
    with ThreadPoolExecutor(threads, "decode") as pool:
        waiting: deque[Future[Loaded | Failed]] = deque()
        fetchers, failure = enumerate(_fetchers(items, sequence)), None
        try:
            while True:
                try:
                    index, fetch = next(fetchers)
                except StopIteration:
                    break
                except Exception as error:  # noqa: BLE001 - raised below, after the results before it
                    failure = error
                    break
                waiting.append(_submit(pool, fetch, index, decode))
                if len(waiting) > ahead:
                    yield _result(waiting, process)
            while waiting:
                yield _result(waiting, process)
            if failure is not None:
                raise failure
        finally:
            for future in waiting:  # nobody wants the rest
                future.cancel()


def threads_for(items: Iterable[Any]) -> int:
    """How many items to decode at once: as many as there are cores, but more if a list has images that wait."""
    listed = items if isinstance(items, (list, tuple)) else ()
    waits = any(isinstance(item, SourceImage) and item.waits for item in listed)
    return max(WAITING_THREADS, DEFAULT_THREADS) if waits else DEFAULT_THREADS


def _fetchers(items: Iterable[Any], sequence: Sequence[Any] | None) -> Iterator[Callable[[int], Any]]:
    """For every item, a function from its number to the item."""
    if sequence is not None:
        yield from itertools.repeat(sequence.__getitem__, len(sequence))
    else:
        yield from ((lambda _, item=item: item) for item in items)


def _submit(
    pool: ThreadPoolExecutor, fetch: Callable[[int], Any], index: int, decode: Decode
) -> Future[Loaded | Failed]:
    try:
        return pool.submit(_decode_one, fetch, index, decode)
    except RuntimeError:  # after the main thread has ended, Python starts no more work in pools
        future: Future[Loaded | Failed] = Future()
        future.set_result(_decode_one(fetch, index, decode))
        return future


def _result(waiting: deque[Future[Loaded | Failed]], process: int) -> Loaded | Failed:
    if os.getpid() != process:
        raise ForkedProcessError(
            "images were being read when this process was forked: begin anew in the child"
        )
    return waiting.popleft().result()


def _decode_one(fetch: Callable[[int], Any], index: int, decode: Decode) -> Loaded | Failed:
    try:
        return Loaded(index, decode(fetch(index)))
    except Aimv2Error as error:
        return Failed(index, error)
