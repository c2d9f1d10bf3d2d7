"""Losses, held against their formulas in float64."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2.training.losses import binary_cross_entropy, cross_entropy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 4, (5, 3))
WEIGHTS = RNG.uniform(0.2, 3, 5)
SOFT = RNG.dirichlet([1, 1, 1], 5)
SEVERAL = RNG.integers(0, 2, (5, 3)).astype(np.float64)


def arrays(*values):
    return [mx.array(value.astype(np.float32)) for value in values]


@pytest.mark.parametrize("targets", [SOFT, np.eye(3)[[0, 2, 1, 1, 0]]], ids=["soft", "hard"])
def test_cross_entropy(targets):
    total, weight = cross_entropy(*arrays(LOGITS, targets, WEIGHTS))
    logarithms = LOGITS - np.log(np.exp(LOGITS).sum(axis=1, keepdims=True))
    assert total.item() == pytest.approx(-(targets * logarithms * WEIGHTS[:, None]).sum(), rel=1e-5)
    assert weight.item() == pytest.approx(WEIGHTS.sum(), rel=1e-6)


@pytest.mark.parametrize("targets", [SEVERAL, 0.9 * SEVERAL + 0.05], ids=["hard", "smoothed"])
def test_binary_cross_entropy(targets):
    total, weight = binary_cross_entropy(*arrays(LOGITS, targets, WEIGHTS))
    p = 1 / (1 + np.exp(-LOGITS))
    losses = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(axis=1)
    assert total.item() == pytest.approx((losses * WEIGHTS).sum(), rel=1e-5)
    assert weight.item() == pytest.approx(WEIGHTS.sum(), rel=1e-6)


@pytest.mark.parametrize("loss", [cross_entropy, binary_cross_entropy])
def test_large_logits_stay_finite_and_half_precision_is_summed_in_float32(loss):
    targets, weights = mx.array(np.eye(3)[[0, 1]].astype(np.float32)), mx.ones(2)
    for dtype in (mx.float16, mx.bfloat16):
        logits = mx.array([[3e4, -3e4, 0.0], [-3e4, 3e4, 0.0]]).astype(dtype)
        total, _ = loss(logits, targets, weights)
        assert total.dtype == mx.float32 and np.isfinite(total.item())


@pytest.mark.parametrize("loss", [cross_entropy, binary_cross_entropy])
def test_sums_of_parts_are_the_sum_of_all(loss):
    targets = SOFT
    whole = loss(*arrays(LOGITS, targets, WEIGHTS))
    parts = [loss(*arrays(LOGITS[k], targets[k], WEIGHTS[k])) for k in (slice(0, 2), slice(2, 5))]
    for k in (0, 1):
        assert whole[k].item() == pytest.approx(sum(part[k].item() for part in parts), rel=1e-5)
