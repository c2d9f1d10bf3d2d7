"""Dividing work over several CPU streams.

On a CPU, MLX computes everything but matrix products with one thread, and the threads of a BLAS wait for each other
after every product. Several streams, each with its share of the BLAS threads, leave no core idle.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import mlx.core as mx

from .blas import STREAMS, divide_threads, joined_threads
from .device import on_cpu
from .threads import computing, thread_streams

# of the tokens (B, N, D) in a part, at least; with fewer, waiting for each other takes longer than it saves
ELEMENTS = 1 << 16


class _Thread(threading.local):
    """Whether the work of the running thread is divided."""

    divides = True


_thread = _Thread()


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """A context in which the work of this thread is not divided, and a product has all threads of the BLAS.

    For gradients: MLX evaluates a few operations ahead, in an order that takes one part of a batch after the other.
    """
    if not on_cpu():
        yield
        return
    before, _thread.divides = _thread.divides, False
    try:
        with joined_threads():
            yield
    finally:
        _thread.divides = before


def streams_for(size: int) -> tuple[mx.Stream, ...]:
    """The streams of this thread to divide an array of ``size`` elements over; empty if one stream is best."""
    count = min(divide_threads(), size // ELEMENTS) if _thread.divides and on_cpu() else 1
    return thread_streams(divide_threads())[:count] if count > 1 else ()


def even_slices(length: int, count: int) -> Iterator[slice]:
    """``count`` slices that divide ``length``, and differ by one at most."""
    ends = [length * number // count for number in range(count + 1)]
    return (slice(start, end) for start, end in itertools.pairwise(ends))


def evaluate_together(groups: Sequence[Any]) -> None:
    """Evaluate groups of arrays, each on a stream of its own, at the same time.

    Each has a thread, because MLX takes the operations of one evaluation in an order that finishes one group first.

    Args:
        groups: trees of arrays; no two depend on the same array that is not evaluated yet.
    """
    if threading.current_thread().daemon:  # may go on while Python ends, when no thread can be started
        mx.eval(groups)
        return
    others = [_helpers().submit(computing(mx.eval), group) for group in groups[1:]]
    try:
        mx.eval(groups[0])
    finally:
        wait(others)
    for other in others:
        other.result()


@functools.lru_cache(maxsize=1)
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(STREAMS - 1, "mlx-aimv2")  # kept: MLX never ends the stream of a thread
