"""Colours with and without a name that never come near to a held-out pair, and grounds of any colour."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_world.colors import any_colors
from drawn_world.combinations import HELD_OUT_PAIRS
from drawn_world.examples import recolored_examples
from drawn_world.scenes import COLORS, SHAPES, Ground, Scene, Thing
from drawn_world.surfaces import PAINTS, distance, ink_for, own_colors


def nearest(color):
    """The name of the paint that a colour is most like."""
    return min(PAINTS, key=lambda name: distance(PAINTS[name], color))


def alone(shape, color="red", finish="even"):
    return Scene(Thing(shape, color, "dotted"), Ground("grey", finish), position="centre")


@pytest.mark.parametrize("finish", ["even", "fading"])
@pytest.mark.parametrize("shape", SHAPES)
def test_things_can_be_told_from_their_ground_and_their_texture(shape, finish):
    for seed in range(20):
        colors = any_colors(alone(shape, finish=finish), seed)
        for fill, ink in colors.things.values():
            assert min(distance(fill, side) for side in colors.ground) >= 90
            assert distance(fill, ink) >= 50


def test_they_are_of_all_kinds_on_grounds_of_all_kinds_near_and_far():
    every = [any_colors(alone("square"), seed) for seed in range(600)]
    fills = np.array([fill for colors in every for fill, _ in colors.things.values()])
    grounds = np.array([colors.ground[0] for colors in every])
    for found in (fills, grounds):
        assert (found.min(axis=0) < 30).all() and (found.max(axis=0) > 225).all()
        assert (found.std(axis=0) > 50).all()
    steps = np.linalg.norm(fills - grounds, axis=1)
    assert np.mean(steps < 150) > 0.3 and np.mean(steps > 200) > 0.1
    assert 0.4 < np.mean(np.ptp(grounds, axis=1) <= 24) < 0.65  # nearly grey
    inks = np.array([ink for colors in every for _, ink in colors.things.values()])
    assert np.linalg.norm(inks - grounds, axis=1).min() < 40  # a texture may nearly vanish in the ground


def test_neither_fill_nor_ink_looks_like_a_held_out_pair():
    """By the paint it is nearest to, and red and brown, the paints least apart, are 98 apart."""
    every = [one for one in recolored_examples(6000, 7) if one.recolored == "everything"]
    assert len(every) == 3000
    for example in every:
        for thing, both in any_colors(example.scene, example.seed).things.items():
            never = [name for shape, name in HELD_OUT_PAIRS if shape == thing.shape]
            for one in both:
                assert nearest(one) not in never
                assert all(distance(one, PAINTS[name]) > 98 for name in never)


@pytest.mark.parametrize("color", COLORS)
def test_things_may_keep_their_own_colours_on_any_ground(color):
    for seed in range(20):
        scene = alone("ring", color, "fading")
        colors = any_colors(scene, seed, keep_things=True)
        fill, ink = colors.things[scene.thing]
        assert (fill, ink) == (PAINTS[color], ink_for(PAINTS[color], colors.ground))
        assert min(distance(fill, side) for side in colors.ground) >= 90
        assert colors.ground != own_colors(scene).ground


def test_each_kind_of_thing_has_its_own_and_a_seed_always_the_same():
    example = next(one for one in recolored_examples(50) if one.scene.other is not None)
    found = any_colors(example.scene, "seed")
    assert found == any_colors(example.scene, "seed") != any_colors(example.scene, "another")
    assert found.things[example.scene.thing] != found.things[example.scene.other]


def test_a_fading_ground_fades_and_an_even_one_does_not():
    assert len(set(any_colors(alone("star", finish="fading"), 1).ground)) == 2
    assert len(set(any_colors(alone("star"), 1).ground)) == 1
