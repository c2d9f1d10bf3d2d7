"""Things lie whole in the image, apart, and where the scene says."""

from __future__ import annotations

import math
import random
from itertools import combinations

from drawn_world.grammar import held_out_scene, training_scene
from drawn_world.placement import DIAMETERS, places
from drawn_world.scenes import POSITIONS, RELATIONS, Ground, Scene, Thing
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(0, 2**64))
def test_things_are_whole_and_apart_and_of_their_size(seed):
    for make in (training_scene, held_out_scene):
        rng = random.Random(seed)
        scene = make(rng)
        found = places(scene, rng)
        assert len(found) == sum(thing.count for thing in scene.things)
        for place in found:
            least, most = DIAMETERS[place.thing.size]
            assert least <= place.diameter <= most
            assert place.diameter / 2 < min(place.x, place.y, 1 - place.x, 1 - place.y)
        for one, two in combinations(found, 2):
            apart = math.dist((one.x, one.y), (two.x, two.y))
            assert apart >= (one.diameter + two.diameter) / 2 - 1e-9


def test_sizes_do_not_overlap_and_small_is_large_enough():
    (small, _), *_ = DIAMETERS.values()
    ends = [end for limits in DIAMETERS.values() for end in limits]
    assert ends == sorted(ends)
    assert small >= 0.22


def test_positions_are_where_they_say():
    rng = random.Random(0)
    for number, position in enumerate(POSITIONS):
        for size in DIAMETERS:
            (place,) = places(Scene(Thing("star", "red", size=size), Ground("grey"), position), rng)
            row, column = (sum(value > limit for limit in (0.4, 0.6)) for value in (place.y, place.x))
            assert 3 * row + column == number


def test_relations_hold():
    rng = random.Random(0)
    for relation in RELATIONS:
        for size in DIAMETERS:
            thing, other = Thing("star", "red", size="large"), Thing("ring", "blue", size=size)
            found = places(Scene(thing, Ground("grey"), relation=relation, other=other), rng)
            first, second = sorted(found, key=lambda place: place.thing.shape, reverse=True)
            x, y = first.x - second.x, first.y - second.y
            along = {"left of": -x, "right of": x, "above": -y, "below": y}[relation]
            assert along > max(0.2, abs(y if relation.endswith("of") else x))
