"""Scenes by chance: of every kind, and without what is held out."""

from __future__ import annotations

import random
from collections import Counter

from drawn_world.combinations import HELD_OUT_PAIRS, is_held_out_pair
from drawn_world.grammar import held_out_scene, one_kind_scene, training_scene, zero_shot_scene
from drawn_world.scenes import (
    COLORS,
    COUNTS,
    FINISHES,
    GROUND_COLORS,
    POSITIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
)
from drawn_world.surfaces import goes_on
from helpers.held_out import is_for_training


def test_training_scenes_hold_everything_but_what_is_held_out():
    rng = random.Random(0)
    scenes = [training_scene(rng) for _ in range(2000)]
    things = [thing for scene in scenes for thing in scene.things]
    assert all(map(is_for_training, scenes))
    assert len({thing.label for thing in things}) == 120 - len(HELD_OUT_PAIRS)
    for field, names in {
        "shape": SHAPES,
        "color": COLORS,
        "texture": TEXTURES,
        "size": SIZES,
        "count": COUNTS,
    }.items():
        assert {getattr(thing, field) for thing in things} == set(names)
    assert {scene.position for scene in scenes} == {*POSITIONS, None}
    assert {scene.relation for scene in scenes} == {*RELATIONS, None}
    assert {scene.ground.color for scene in scenes} == set(GROUND_COLORS)
    assert {scene.ground.finish for scene in scenes} == set(FINISHES)


def test_things_can_be_told_from_their_ground_and_from_each_other():
    rng = random.Random(1)
    for _ in range(500):
        scene = training_scene(rng)
        assert all(goes_on(thing, scene.ground) for thing in scene.things)
        assert all(thing.color != scene.ground.color for thing in scene.things)
        assert len({thing.label for thing in scene.things}) == len(scene.things)


def test_the_kinds_of_scenes_have_their_shares():
    rng = random.Random(2)
    kinds = Counter(
        "pair" if scene.other else "alone" if scene.position else "several"
        for scene in (training_scene(rng) for _ in range(2000))
    )
    assert 700 < kinds["alone"] < 900 and 400 < kinds["several"] < 600 and 600 < kinds["pair"] < 800


def test_zero_shot_scenes_hold_one_kind_of_thing():
    rng = random.Random(3)
    scenes = [zero_shot_scene(("triangle", "pink"), rng) for _ in range(300)]
    assert {scene.thing.label for scene in scenes} == {"pink triangle"}
    assert {scene.thing.count for scene in scenes} == {1, 2, 3, 4}
    assert not any(scene.other for scene in scenes)


def test_held_out_scenes_hold_a_held_out_pair():
    rng = random.Random(4)
    scenes = [held_out_scene(rng) for _ in range(500)]
    assert all(is_held_out_pair(scene.thing) for scene in scenes)
    assert {bool(scene.other) for scene in scenes} == {True, False}


def test_scenes_of_one_kind_hold_out_the_same():
    rng = random.Random(5)
    scenes = [one_kind_scene(rng) for _ in range(500)]
    assert all(is_for_training(scene) and scene.other is None for scene in scenes)
    assert {scene.thing.count for scene in scenes} == set(COUNTS)
    assert {scene.thing.shape for scene in scenes} == set(SHAPES)
