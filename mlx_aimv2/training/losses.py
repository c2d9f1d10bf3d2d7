"""Loss functions: the sum over a batch and its weight, so that batches of any size average correctly."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

Sums = tuple[mx.array, mx.array]  # the summed loss, and the summed weight


def cross_entropy(logits: mx.array, targets: mx.array, weights: mx.array) -> Sums:
    """Cross-entropy with soft targets.

    Args:
        logits: (B, C) float32.
        targets: (B, C), rows that sum to 1.
        weights: (B,), how much each image counts.
    """
    logits = logits.astype(mx.float32)
    losses = mx.logsumexp(logits, axis=-1) * targets.sum(axis=-1) - (logits * targets).sum(axis=-1)  # (B,)
    return (losses * weights).sum(), weights.sum()


def binary_cross_entropy(logits: mx.array, targets: mx.array, weights: mx.array) -> Sums:
    """The mean over classes of binary cross-entropies, for images with several labels.

    Args:
        logits: (B, C) float32.
        targets: (B, C), each between 0 and 1.
        weights: (B,), how much each image counts.
    """
    losses = nn.losses.binary_cross_entropy(
        logits.astype(mx.float32), targets, with_logits=True, reduction="none"
    )
    return (losses.mean(axis=-1) * weights).sum(), weights.sum()


def contrastive(logits: mx.array, targets: mx.array, weights: mx.array) -> Sums:
    """Symmetric cross-entropy of images and captions (Radford et al. 2021, "CLIP", figure 3).

    Args:
        logits: (B, B) float32, images by row and captions by column.
        targets: (B, B), the same both ways: 1 on the diagonal, or where captions are the same, equal parts of 1.
        weights: (B,), how much each pair counts.
    """
    by_image, _ = cross_entropy(logits, targets, weights)
    by_caption, weight = cross_entropy(logits.T, targets, weights)
    return 0.5 * (by_image + by_caption), weight
