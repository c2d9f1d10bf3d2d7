"""Batches of a run."""

from __future__ import annotations

import pytest

from mlx_aimv2.finetuning.options import FinetuneOptions
from mlx_aimv2.training.options import OPTIMIZERS


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weight_decay_is_a_hundredth_where_an_optimizer_has_one(optimizer: str) -> None:
    without = optimizer in ("adam", "rmsprop", "adagrad", "adadelta", "adamax")
    assert FinetuneOptions(optimizer=optimizer).decay == (0.0 if without else 0.01)
    assert FinetuneOptions(optimizer=optimizer, weight_decay=0.0).decay == 0.0
    if not without:
        assert FinetuneOptions(optimizer=optimizer, weight_decay=0.3).decay == 0.3
