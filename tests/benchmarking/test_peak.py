"""The rate of matrix products, with a clock that ticks once a call."""

from __future__ import annotations

import itertools

import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2.benchmarking import peak
from mlx_aimv2.errors import InputError


@pytest.fixture
def ticks(monkeypatch):
    """Every look at the clock is a second later."""
    clock = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))


def test_the_rate_counts_two_operations_per_multiplication(ticks):
    assert peak.product_rate(8) == 2 * 8**3


def test_the_caller_keeps_its_random_state():
    mx.random.seed(3)
    expected = np.array(mx.random.normal((4,)))
    mx.random.seed(3)
    peak.product_rate(8, budget_s=0)
    assert np.array_equal(np.array(mx.random.normal((4,))), expected)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(InputError, match="float64"):
        peak.product_rate(8, "float64")
