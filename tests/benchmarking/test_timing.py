"""Durations of repeated work, with a clock that ticks by the run."""

from __future__ import annotations

import pytest

from mlx_aimv2.benchmarking.timing import Timing, measure


@pytest.fixture
def work(monkeypatch):
    """Work whose runs take the durations it is given, in seconds; the last one repeats."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def make(*durations):
        left = list(durations)

        def run():
            now[0] += left.pop(0) if len(left) > 1 else left[0]

        return run

    return make


def test_the_first_run_only_warms_up(work):
    timing = measure(work(9, 1, 2, 3), budget_s=6)
    assert timing == Timing((1, 2, 3))
    assert (timing.fastest, timing.median, timing.slowest) == (1, 2, 3)


def test_the_run_that_exceeds_the_budget_is_the_last(work):
    assert len(measure(work(1, 0.75), budget_s=3).seconds) == 4


def test_a_slow_run_is_still_measured_a_few_times(work):
    assert measure(work(60), budget_s=1, least=2).seconds == (60, 60)


def test_a_fast_run_does_not_use_up_the_budget(work):
    assert len(measure(work(0.001), budget_s=60, most=5).seconds) == 5
