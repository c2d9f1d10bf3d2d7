"""Twelve shapes that no turn makes alike."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from drawn_world.outlines import FILLED, shape_mask
from drawn_world.scenes import SHAPES


def mask(shape: str, turn: float = 0.0) -> np.ndarray:
    return np.asarray(shape_mask(shape, 48, 44, (24, 24), turn)) > 0


def test_every_shape_has_an_outline_within_its_circle():
    assert set(FILLED) == set(SHAPES)
    for polygon in FILLED.values():
        assert np.hypot(*polygon.T).max() == pytest.approx(0.5)


@pytest.mark.parametrize(("one", "two"), list(combinations(SHAPES, 2)))
def test_shapes_differ_however_they_are_turned(one, two):
    still = mask(one)
    least = min(
        (still ^ other).sum() / (still | other).sum() for other in (mask(two, x) for x in range(0, 360, 15))
    )
    assert least > 0.2


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_fills_a_good_part_of_its_circle(shape):
    assert 0.3 < mask(shape).sum() / (np.pi * 22**2) < 1.05


def test_a_turn_is_clockwise():
    right, down = mask("arrow"), mask("arrow", 90)
    assert right[:, 24:].sum() > right[:, :24].sum()
    assert down[24:].sum() > down[:24].sum()
