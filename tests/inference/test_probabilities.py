"""Probabilities of logits."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mlx_aimv2 import ZeroShotClassifier

LABELS = ["dog", "cat", "red bicycle"]


def test_large_logits_do_not_overflow(pair, draw):
    model, processor = pair
    model.logit_scale = mx.array(1000.0)  # clamped to max_logit_scale
    scores = ZeroShotClassifier(model, processor, LABELS).scores(np.eye(3, 32, dtype=np.float32) * 1000)
    assert np.isfinite(scores).all()


def test_logits_of_zero_are_equal_probabilities(pair, draw):
    classifier = ZeroShotClassifier(*pair, ["dog", "cat", "owl", "jay"])
    classifier.label_embeddings = np.zeros_like(classifier.label_embeddings)
    assert classifier(draw(0)) == [[("dog", 0.25), ("cat", 0.25), ("owl", 0.25), ("jay", 0.25)]]
