"""The number of steps of a run, and the learning rate of every step."""

from __future__ import annotations

import pytest

from mlx_aimv2.finetuning.options import FinetuneOptions
from mlx_aimv2.training.options import LoopOptions
from mlx_aimv2.training.schedule import MOST_EPOCHS, SCHEDULES, learning_rate, planned_steps


def options(learning_rate: float, schedule: str, warmup: float) -> LoopOptions:
    return LoopOptions("top1", True, learning_rate, schedule, warmup)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("total", [1, 7, 100])
def test_it_rises_to_the_peak_and_never_above(schedule: str, warmup: float, total: int) -> None:
    rates = [learning_rate(step, total, options(2e-3, schedule, warmup)) for step in range(total)]
    rising = round(warmup * total)
    assert all(0 < rate <= 2e-3 for rate in rates)
    assert rates[: rising + 1] == sorted(rates[: rising + 1])
    assert rates[rising:] == sorted(rates[rising:], reverse=True)
    if rising < total:
        assert rates[rising] == 2e-3  # the peak is reached


def test_the_rise_is_even_and_begins_above_zero() -> None:
    rates = [learning_rate(step, 100, options(1.1, "constant", 0.1)) for step in range(12)]
    assert rates == pytest.approx([0.1 * k for k in range(1, 11)] + [1.1, 1.1])


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("cosine", [1, 0.853553, 0.5, 0.146447]), ("linear", [1, 0.75, 0.5, 0.25]), ("constant", [1, 1, 1, 1])],
)
def test_each_has_its_shape(schedule: str, expected: list[float]) -> None:
    found = [learning_rate(step, 4, options(1.0, schedule, 0.0)) for step in range(4)]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("method", "steps_per_epoch", "epochs"),
    [
        ("linear", 1, 200), ("linear", 2, 200), ("linear", 8, 125), ("linear", 30, 34), ("linear", 100, 10),
        ("linear", 1001, 10), ("attentive", 8, 38), ("lora", 2, 100), ("lora", 8, 25), ("dora", 20, 10),
        ("full", 19, 11), ("full", 200, 10),
    ],
)  # fmt: skip
def test_small_data_is_seen_more_often_by_default(method: str, steps_per_epoch: int, epochs: int) -> None:
    options = FinetuneOptions(fine_tune_type=method).loop
    assert planned_steps(options, steps_per_epoch) == epochs * steps_per_epoch
    assert epochs <= MOST_EPOCHS


def test_a_length_that_is_named_is_taken() -> None:
    assert planned_steps(FinetuneOptions(fine_tune_type="linear", epochs=3).loop, 2) == 6
    assert planned_steps(FinetuneOptions(fine_tune_type="linear", iters=7).loop, 2) == 7
    assert planned_steps(FinetuneOptions(fine_tune_type="linear", iters=7, epochs=3).loop, 2) == 7
