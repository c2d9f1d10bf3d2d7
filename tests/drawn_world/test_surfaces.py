"""Colours that can be told apart, textures that are seen, grounds that differ."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest
from drawn_world.scenes import COLORS, GROUND_COLORS, TEXTURES, Ground, Thing
from drawn_world.surfaces import (
    GROUNDS,
    PAINTS,
    distance,
    goes_on,
    ground_colors,
    ground_pixels,
    ink_for,
    sides_of,
    slope,
    texture_ink,
)


def test_every_colour_has_its_paint_and_no_two_are_alike():
    assert (tuple(PAINTS), tuple(GROUNDS)) == (COLORS, GROUND_COLORS)
    assert min(distance(PAINTS[one], PAINTS[two]) for one, two in combinations(COLORS, 2)) > 80


@pytest.mark.parametrize("color", COLORS)
def test_a_colour_goes_on_several_grounds_and_never_on_its_own(color):
    grounds = [Ground(name) for name in GROUND_COLORS if goes_on(Thing("star", color), Ground(name))]
    assert len(grounds) >= 2
    assert all(ground.color != color for ground in grounds)
    for ground in grounds:
        assert distance(ink_for(PAINTS[color], ground_colors(ground)), PAINTS[color]) > 45


@pytest.mark.parametrize("texture", TEXTURES)
@pytest.mark.parametrize("size", ["small", "large"])
def test_textures_leave_most_of_a_thing_in_its_colour(texture, size):
    line = np.linspace(-0.5, 0.5, 60, dtype=np.float32)
    ink = texture_ink(Thing("square", "red", texture, size), line[None, :], line[:, None], random.Random(0))
    assert ink.shape == (60, 60)
    assert ink.any() == (texture != "plain")
    assert 0.2 < ink.mean() < 0.6 or texture == "plain"


@pytest.mark.parametrize("color", GROUND_COLORS)
def test_finishes_can_be_told_apart(color):
    even, fading, speckled = (
        ground_pixels(sides_of(GROUNDS[color], finish), finish, 64, random.Random(1))
        for finish in ("even", "fading", "speckled")
    )
    assert even.shape == (64, 64, 3) and np.ptp(even, axis=(0, 1)).max() == 0
    assert np.ptp(fading, axis=(0, 1)).max() > 35
    assert np.abs(np.diff(fading, axis=0)).max() < 4  # it is smooth
    assert speckled.std(axis=(0, 1)).min() > 10


def test_a_slope_runs_from_0_to_1():
    for angle in (0.0, 1.0, 4.0):
        values = slope(32, angle)
        assert values.min() == pytest.approx(0, abs=1e-5) and values.max() == pytest.approx(1, abs=1e-5)
