"""Targets, mixup, cutmix and label smoothing against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_aimv2.training.mixing import Mixing, cutmix, label_smoothing, mixup, multi_hot


class Dice:
    """A generator that gives what it was told."""

    def __init__(self, part: float, partner: list[int], *integers: int) -> None:
        self.part, self.partner, self.numbers = part, np.array(partner), list(integers)

    def beta(self, a: float, b: float) -> float:
        return self.part

    def permutation(self, count: int) -> np.ndarray:
        assert count == len(self.partner)
        return self.partner

    def integers(self, high: int) -> int:
        assert 0 <= self.numbers[0] < high
        return self.numbers.pop(0)


def batch(count: int = 3, height: int = 8, width: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Images that are all 0, all 1, all 2 ..., and one-hot targets."""
    pixels = (
        np.zeros((count, height, width, 3), np.float32)
        + np.arange(count, dtype=np.float32)[:, None, None, None]
    )
    return pixels, np.eye(count, dtype=np.float32)


def test_targets_are_one_hot_or_multi_hot() -> None:
    targets = multi_hot([(2,), (0,), (0, 2), ()], 3)
    assert targets.dtype == np.float32
    assert targets.tolist() == [[0, 0, 1], [1, 0, 0], [1, 0, 1], [0, 0, 0]]


def test_mixup_by_hand() -> None:
    pixels, targets = mixup(*batch(), 0.2, Dice(0.75, [1, 2, 0]))  # type: ignore[arg-type]
    assert pixels[:, 0, 0, 0].tolist() == [0.25, 1.25, 1.5] and (pixels == pixels[:, :1, :1, :1]).all()
    assert targets.tolist() == [[0.75, 0.25, 0], [0, 0.75, 0.25], [0.25, 0, 0.75]]
    assert (pixels.dtype, targets.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize(
    ("row", "column", "inside"),
    [
        (4, 5, (slice(2, 6), slice(3, 8))),  # half of each edge: a quarter of 8 x 10
        (0, 0, (slice(0, 2), slice(0, 3))),  # the middle in a corner: the rest falls outside
        (7, 9, (slice(5, 8), slice(7, 10))),
    ],
)
def test_cutmix_by_hand(row: int, column: int, inside: tuple[slice, slice]) -> None:
    before, hot = batch()
    pixels, targets = cutmix(before, hot, 1.0, Dice(0.75, [1, 2, 0], row, column))  # type: ignore[arg-type]
    expected = before.copy()
    expected[(slice(None), *inside)] = before[[1, 2, 0]][(slice(None), *inside)]
    np.testing.assert_array_equal(pixels, expected)
    part = float((pixels[0, ..., 0] == 1).mean())  # of the second image in the first
    np.testing.assert_allclose(
        targets, [[1 - part, part, 0], [0, 1 - part, part], [part, 0, 1 - part]], atol=1e-6
    )
    assert before.max() == 2 and (before == batch()[0]).all()


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9), st.floats(0.05, 5), st.integers(0, 2**32))
def test_targets_sum_to_one_and_say_what_part_is_whose(
    count: int, height: int, width: int, alpha: float, seed: int
) -> None:
    for mix in (mixup, cutmix):
        pixels, targets = mix(*batch(count, height, width), alpha, np.random.default_rng(seed))
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
        mean = targets @ np.arange(count, dtype=np.float32)
        np.testing.assert_allclose(pixels.mean(axis=(1, 2, 3)), mean, atol=1e-4)


def test_the_same_seed_mixes_the_same() -> None:
    for seed, same in ((3, True), (4, False)):
        first = Mixing(mixup=0.5, cutmix=1.0).apply(*batch(8), np.random.default_rng(3))
        other = Mixing(mixup=0.5, cutmix=1.0).apply(*batch(8), np.random.default_rng(seed))
        assert all((a == b).all() for a, b in zip(first, other, strict=True)) is same


def test_both_ways_are_used_and_some_batches_are_left_alone() -> None:
    kinds = {"plain": 0, "mixup": 0, "cutmix": 0}
    for seed in range(200):
        pixels, targets = Mixing(mixup=1.0, cutmix=1.0, probability=0.5).apply(
            *batch(8), np.random.default_rng(seed)
        )
        whole = (pixels == pixels[:, :1, :1]).all()
        kinds["plain" if (targets == np.eye(8)).all() else "mixup" if whole else "cutmix"] += 1
    assert 75 <= kinds["plain"] <= 125 and min(kinds.values()) > 25


@pytest.mark.parametrize("mixing", [Mixing(), Mixing(mixup=1.0, probability=0.0)])
def test_without_mixing_a_batch_is_left_alone(mixing: Mixing) -> None:
    before = batch()
    after = mixing.apply(*before, np.random.default_rng(0))
    assert after[0] is before[0] and after[1] is before[1]


def test_label_smoothing_by_hand() -> None:
    hot = np.array([[0, 1, 0, 0], [1, 0, 0, 0]], np.float32)
    smooth = label_smoothing(hot, 0.1)
    np.testing.assert_allclose(smooth[0], [0.025, 0.925, 0.025, 0.025], atol=1e-7)
    np.testing.assert_allclose(smooth.sum(axis=1), 1, atol=1e-6)
    several = label_smoothing(np.array([[1, 1, 0]], np.float32), 0.1, multi_label=True)
    np.testing.assert_allclose(several, [[0.95, 0.95, 0.05]], atol=1e-7)
    assert smooth.dtype == several.dtype == np.float32
    np.testing.assert_array_equal(label_smoothing(hot, 0), hot)
