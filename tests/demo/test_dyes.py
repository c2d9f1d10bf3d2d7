"""Colours with and without a name that never come near to a held-out pair."""

from __future__ import annotations

import random

import numpy as np
import pytest

from mlx_aimv2.demo.combinations import HELD_OUT_PAIRS
from mlx_aimv2.demo.dyes import dye, dyes
from mlx_aimv2.demo.examples import dyed_examples
from mlx_aimv2.demo.scenes import GROUND_COLORS, SHAPES, Ground
from mlx_aimv2.demo.surfaces import PAINTS, distance, ground_colors, ink_for


def nearest(color):
    """The name of the paint that a colour is most like."""
    return min(PAINTS, key=lambda name: distance(PAINTS[name], color))


@pytest.mark.parametrize("shape", SHAPES)
def test_any_colour_can_be_told_from_its_ground(shape):
    rng = random.Random(shape)
    for ground in (Ground(color, finish) for color in GROUND_COLORS for finish in ("even", "fading")):
        for color in (dye(shape, ground, rng) for _ in range(20)):
            assert all(distance(color, other) >= 110 for other in ground_colors(ground))


def test_they_are_of_all_kinds():
    rng = random.Random(0)
    found = np.array([dye("star", Ground("grey"), rng) for _ in range(400)])
    assert (
        (found.min(axis=0) < 30).all() and (found.max(axis=0) > 225).all() and (found.std(axis=0) > 50).all()
    )


def test_neither_fill_nor_ink_looks_like_a_held_out_pair():
    """By the paint it is nearest to, and red and brown, the paints least apart, are 98 apart."""
    for example in dyed_examples(3000, seed=7):
        for thing, color in dyes(example.scene, example.seed).items():
            never = [name for shape, name in HELD_OUT_PAIRS if shape == thing.shape]
            for one in (color, ink_for(color, example.scene.ground)):
                assert nearest(one) not in never
                assert all(distance(one, PAINTS[name]) > 98 for name in never)


def test_each_kind_of_thing_has_its_own_and_a_seed_always_the_same():
    example = next(one for one in dyed_examples(50) if one.scene.other is not None)
    found = dyes(example.scene, "seed")
    assert found == dyes(example.scene, "seed") != dyes(example.scene, "another")
    assert found[example.scene.thing] != found[example.scene.other]
