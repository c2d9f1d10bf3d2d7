"""Mixup and cutmix of batches, targets from labels, label smoothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Mixed = tuple[np.ndarray, np.ndarray]
Rng = np.random.Generator


@dataclass(frozen=True)
class Mixing:
    """How training batches are mixed at random; not at all by default. `FinetuneOptions` checks the values.

    Attributes:
        mixup: alpha of the beta distribution of mixup; 0 for no mixup. 0.2 changes most images a little, 0.8 much.
        cutmix: the same for cutmix, where 1 (uniform) is usual. With both, each mixed batch has one of them.
        probability: chance that a batch is mixed, 0 to 1.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0

    def apply(self, pixels: np.ndarray, targets: np.ndarray, rng: Rng) -> Mixed:
        """Pixels (B, H, W, 3) and targets (B, C) of a batch, mixed at random."""
        ways = [(mix, alpha) for mix, alpha in ((mixup, self.mixup), (cutmix, self.cutmix)) if alpha]
        if not ways or rng.random() >= self.probability:
            return pixels, targets
        mix, alpha = ways[rng.integers(len(ways))]
        return mix(pixels, targets, alpha, rng)


def mixup(pixels: np.ndarray, targets: np.ndarray, alpha: float, rng: Rng) -> Mixed:
    """Every image laid over another of its batch (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization").

    Args:
        pixels: (B, H, W, 3) float32.
        targets: (B, C) float32, mixed in the same parts.
        alpha: the part that remains is drawn from Beta(alpha, alpha), once for the batch.
        rng: the source of all randomness.
    """
    part, partner = np.float32(rng.beta(alpha, alpha)), rng.permutation(len(pixels))
    return _blend(pixels, pixels[partner], part), _blend(targets, targets[partner], part)


def cutmix(pixels: np.ndarray, targets: np.ndarray, alpha: float, rng: Rng) -> Mixed:
    """A rectangle of every image from another of its batch (Yun et al. 2019, "CutMix").

    The rectangle is the same in the whole batch. Its middle may lie anywhere, so part of it may fall outside;
    targets are mixed by the area inside.

    Args:
        pixels: (B, H, W, 3) float32.
        targets: (B, C) float32.
        alpha: the part of the area that remains is drawn from Beta(alpha, alpha).
        rng: the source of all randomness.
    """
    part, partner = rng.beta(alpha, alpha), rng.permutation(len(pixels))
    height, width = pixels.shape[1:3]
    top, bottom = _span(height, math.sqrt(1 - part), rng)
    left, right = _span(width, math.sqrt(1 - part), rng)
    mixed = pixels.copy()
    mixed[:, top:bottom, left:right] = pixels[partner, top:bottom, left:right]
    remaining = np.float32(1 - (bottom - top) * (right - left) / (height * width))
    return mixed, _blend(targets, targets[partner], remaining)


def _span(length: int, part: float, rng: Rng) -> tuple[int, int]:
    """First and last of a ``part`` of ``length`` with its middle anywhere, cut off at the ends."""
    middle, half = int(rng.integers(length)), round(length * part) / 2
    return max(0, math.ceil(middle - half)), min(length, math.ceil(middle + half))


def _blend(first: np.ndarray, second: np.ndarray, part: np.float32) -> np.ndarray:
    return part * first + (1 - part) * second


def multi_hot(labels: Sequence[tuple[int, ...]], classes: int) -> np.ndarray:
    """Targets (B, C) float32: 1 for each label of an image, so one-hot where each has a single one."""
    targets = np.zeros((len(labels), classes), dtype=np.float32)
    for row, numbers in enumerate(labels):
        targets[row, list(numbers)] = 1
    return targets


def label_smoothing(targets: np.ndarray, amount: float, multi_label: bool = False) -> np.ndarray:
    """Targets with label smoothing (Szegedy et al. 2016, "Rethinking the Inception Architecture").

    Args:
        targets: (B, C) float32.
        amount: the part that is taken from the labels, 0 to below 1.
        multi_label: spread it over yes and no of each class, not over the classes.
    """
    spread = 0.5 if multi_label else 1 / targets.shape[1]
    return (targets * (1 - amount) + amount * spread).astype(np.float32)
