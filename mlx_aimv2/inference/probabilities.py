"""Softmax and sigmoid: logits to probabilities, in numpy."""

from __future__ import annotations

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log probabilities (N, C) float64 of logits (N, C)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_probabilities: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probabilities


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities float64 of logits of any shape, each label independent of the others."""
    probabilities: np.ndarray = np.exp(-np.logaddexp(0, -logits.astype(np.float64)))
    return probabilities
