"""Estimates of time and memory."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2.errors import InputError
from mlx_aimv2.finetuning.estimate import estimate
from mlx_aimv2.finetuning.run import finetune
from mlx_aimv2.training.loop import Loop
from mlx_aimv2.training.state import SavedRun

RATES = {"linear": 1e-2, "attentive": 5e-3, "lora": 3e-3, "dora": 3e-3, "full": 3e-4}


def training(method, epochs):
    """How long and how fast to train, for a method that does."""
    return {} if method == "knn" else {"epochs": epochs, "learning_rate": RATES[method]}


@pytest.mark.parametrize("method", [*RATES, "knn"])
def test_an_estimate_is_made_of_two_steps_and_leaves_nothing(options, method, tmp_path, monkeypatch):
    monkeypatch.setattr(SavedRun, "end", lambda self: None)  # so that the features are still there
    given = options(fine_tune_type=method, **training(method, epochs=3))
    found = estimate(given)
    assert list(tmp_path.iterdir()) == []
    finished = finetune(given)
    assert (found.trainable, found.steps, found.epochs) == (
        (0, 0, 0) if method == "knn" else (finished.trainable, finished.trained.steps, 3)
    )
    assert found.peak_bytes > 4 * found.trainable
    assert (found.seconds_before > 0) == (method in ("linear", "attentive", "knn"))
    assert found.seconds == pytest.approx(found.seconds_before + 3 * found.seconds_per_epoch)
    on_disk = {"linear": 18 * 64 * 4, "knn": 18 * 64 * 4, "attentive": 18 * 16 * 64 * 2}.get(method, 0)
    assert found.feature_bytes == on_disk
    files = (finished.folder / ".training" / "features").glob("*.npy")
    assert on_disk == sum(np.load(path).nbytes for path in files)


def test_an_estimate_counts_steps_and_everything_that_a_sweep_tries(options, monkeypatch):
    monkeypatch.setattr(Loop, "rehearse", lambda self, steps: 2.0)
    found = estimate(options(iters=1))
    assert (found.steps, found.seconds_per_epoch, found.seconds) == (1, 2.0, 2.0)
    found = estimate(options(iters=7))
    assert (found.seconds_per_epoch, found.seconds) == (4 * 2.0, 7 * 2.0)
    found = estimate(options(fine_tune_type="linear", sweep=True, epochs=3))
    assert found.runs == 13 and found.seconds - found.seconds_before == pytest.approx(13 * 3 * 4 * 2.0)
    assert estimate(options(fine_tune_type="linear", sweep=True, optimizer="adam")).runs == 5


def test_an_estimate_counts_features_that_are_held_in_memory(options, monkeypatch):
    monkeypatch.setattr(mx, "get_peak_memory", lambda: 1000)
    held = [estimate(options(fine_tune_type=method)).peak_bytes - 1000 for method in ("linear", "attentive")]
    assert held == [18 * 64 * 4, 0]


def test_an_estimate_of_less_than_two_steps(options, tmp_path):
    found = estimate(options(batch_size=64, epochs=1, grad_accumulation_steps=3))
    assert found.steps == 1 and found.seconds_per_epoch > 0
    with pytest.raises(InputError, match="no run to go on with"):
        estimate(options(resume=True))
