"""MLX's random state, left as the caller had it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import cast

import mlx.core as mx
import numpy as np


@contextlib.contextmanager
def caller_random_state() -> Iterator[None]:
    """A context that leaves MLX's random state as it was."""
    high, low = map(int, np.array(cast("list[mx.array]", mx.random.state)[0]))
    try:
        yield
    finally:
        mx.random.seed(high << 32 | low)  # the key of a seed is its two halves
