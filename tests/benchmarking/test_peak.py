"""Rates of matrix products and copies, with a clock that ticks once a call."""

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


def test_the_peak_is_the_best_of_growing_sizes(monkeypatch):
    seconds = {1024: 0.02, 2048: 0.04, 4096: 0.64}  # the third fills the device
    monkeypatch.setattr(peak, "_fastest_product", lambda size, dtype, budget_s: seconds[size])
    assert peak.peak_rate() == 2 * 2048**3 / 0.04


def test_the_caller_keeps_its_random_state():
    mx.random.seed(3)
    expected = np.array(mx.random.normal((4,)))
    mx.random.seed(3)
    peak.product_rate(8, budget_s=0)
    assert np.array_equal(np.array(mx.random.normal((4,))), expected)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(InputError, match="float64"):
        peak.product_rate(8, "float64")


def test_bandwidth_counts_what_is_read_and_what_is_written(ticks, monkeypatch):
    monkeypatch.setattr(peak, "COPIED_BYTES", 1 << 12)
    assert peak.memory_bandwidth() == 2 << 12
    monkeypatch.setattr(peak, "on_cpu", lambda: False)
    assert peak.memory_bandwidth() == 2 << 12
