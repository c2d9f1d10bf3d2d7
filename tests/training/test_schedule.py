"""The learning rate of every step."""

from __future__ import annotations

import pytest

from mlx_aimv2.training.schedule import SCHEDULES, learning_rate


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("total", [1, 7, 100])
def test_it_rises_to_the_peak_and_never_above(schedule: str, warmup: float, total: int) -> None:
    rates = [learning_rate(step, total, 2e-3, schedule, warmup) for step in range(total)]
    rising = round(warmup * total)
    assert all(0 < rate <= 2e-3 for rate in rates)
    assert rates[: rising + 1] == sorted(rates[: rising + 1])
    assert rates[rising:] == sorted(rates[rising:], reverse=True)
    if rising < total:
        assert rates[rising] == 2e-3  # the peak is reached


def test_the_rise_is_even_and_begins_above_zero() -> None:
    rates = [learning_rate(step, 100, 1.1, "constant", 0.1) for step in range(12)]
    assert rates == pytest.approx([0.1 * k for k in range(1, 11)] + [1.1, 1.1])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("cosine", [1, 0.853553, 0.5, 0.146447]), ("linear", [1, 0.75, 0.5, 0.25]), ("constant", [1, 1, 1, 1])],
)
def test_each_has_its_shape(schedule: str, expected: list[float]) -> None:
    found = [learning_rate(step, 4, 1.0, schedule, 0.0) for step in range(4)]
    assert found == pytest.approx(expected, abs=1e-6)
