"""Dividing work over several CPU streams.

On a CPU, MLX computes everything but matrix products with one thread, and the threads of a BLAS wait for each other
after every product. Several streams, each with its share of the BLAS threads, leave no core idle.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import mlx.core as mx

from .blas import divide_threads
from .device import on_cpu
from .threads import thread_streams

# of the tokens (B, N, D) in a part, at least; with fewer, waiting for each other takes longer than it saves
ELEMENTS = 1 << 16


def streams_for(size: int) -> tuple[mx.Stream, ...]:
    """The streams of this thread to divide an array of ``size`` elements over; empty if one stream is best."""
    count = min(divide_threads(), size // ELEMENTS) if on_cpu() else 1
    return thread_streams(divide_threads())[:count] if count > 1 else ()


def even_slices(length: int, count: int) -> Iterator[slice]:
    """``count`` slices that divide ``length``, and differ by one at most."""
    ends = [length * number // count for number in range(count + 1)]
    return (slice(start, end) for start, end in itertools.pairwise(ends))
