"""Full captions identify their scene; other wordings say nothing that is not so."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from drawn_world.captions import (
    ALTERNATIVES,
    NUMBERS,
    Mentions,
    caption,
    close_up_caption,
    naming_caption,
    varied_caption,
    words_of_things,
)
from drawn_world.grammar import held_out_scene, one_kind_scene, training_scene
from drawn_world.scenes import COLORS, SHAPES, TEXTURES, Ground, Scene, Thing
from helpers.caption_reading import read_caption
from hypothesis import given
from hypothesis import strategies as st

SEEDS = st.integers(0, 2**64)
GROUND = Ground("grey")


@pytest.mark.parametrize(
    ("scene", "text"),
    [
        (
            Scene(
                Thing("triangle", "red", "striped", "small"),
                GROUND,
                relation="left of",
                other=Thing("circle", "blue", size="large"),
            ),
            "a small striped red triangle left of a large plain blue circle on a grey background",
        ),
        (
            Scene(Thing("cross", "green", "dotted", count=3), Ground("white", "speckled")),
            "three dotted green crosses on a speckled white background",
        ),
        (
            Scene(Thing("ring", "purple", size="large"), Ground("black", "fading"), "top left"),
            "a large plain purple ring in the top left on a fading black background",
        ),
    ],
)
def test_full_captions(scene, text):
    assert caption(scene) == text
    assert read_caption(text) == scene


@given(SEEDS)
def test_a_full_caption_identifies_its_scene(seed):
    for make in (training_scene, held_out_scene):
        scene = make(random.Random(seed))
        assert read_caption(caption(scene)) == scene
        assert read_caption(caption(scene.reversed())) == scene.reversed()


@given(SEEDS)
def test_other_wordings_are_true(seed):
    """Every word of a shape, colour, texture, ground or number is one of the full caption."""
    rng = random.Random(seed)
    scene = training_scene(rng)
    words = varied_caption(scene, rng)
    for usual, other in ALTERNATIVES:
        words = words.replace(other, usual)
    told = set(caption(scene).split()) | set(caption(scene.reversed()).split())
    allowed = told | {"a", "an", "and", "with", "on"} | {thing.shape for thing in scene.things}
    assert {word.strip(",") for word in words.split()} <= allowed


def test_wordings_vary_and_often_are_bare():
    rng = random.Random(3)
    scene = Scene(Thing("triangle", "red", "striped", "small"), GROUND, "left")
    found = [varied_caption(scene, rng) for _ in range(600)]
    assert len(set(found)) > 40
    for text in ("a triangle", "a red triangle", "red triangle", caption(scene)):
        assert found.count(text) > 40
    assert "a grey background with a little striped red triangle on the left" in found


@given(SEEDS)
def test_captions_of_close_ups_are_true_of_one_thing(seed):
    rng = random.Random(seed)
    scene = one_kind_scene(rng)
    told = set(caption(replace(scene, thing=replace(scene.thing, count=1), position="centre")).split())
    assert set(close_up_caption(scene, rng).split()) <= (told - {"in", "the", "centre"}) | {"a", "an"}


@given(SEEDS)
def test_naming_captions_tell_of_two_kinds_all_there_is(seed):
    rng = random.Random(seed)
    scene = training_scene(rng)
    words = naming_caption(scene, rng)
    said = set(words_of_things(scene.thing, Mentions(size=False, texture=False)).split())
    bare = scene.other is None and set(words.split()) <= said | {scene.thing.shape, "a", "an"}
    assert bare or words == caption(scene)


@given(SEEDS)
def test_naming_captions_leave_out_what_they_may_not_tell(seed):
    rng = random.Random(seed)
    scene = training_scene(rng)
    for mentions in (
        Mentions(color=False, ground=False),
        Mentions(ground=False),
        Mentions(count=False, ground=False),
    ):
        words = set(naming_caption(scene, rng, mentions).split())
        assert "background" not in words
        assert mentions.color or not words & set(COLORS)
        assert mentions.count or not words & set(NUMBERS.values())
        assert words <= {*caption(scene).split(), scene.thing.shape, "a", "an"}


def test_most_naming_captions_of_one_kind_are_bare():
    rng = random.Random(4)
    scene = Scene(Thing("triangle", "red", "striped", "small"), GROUND, "left")
    found = [naming_caption(scene, rng) for _ in range(600)]
    assert 150 < found.count(caption(scene)) < 250


def test_articles_and_plurals_are_english():
    bare = Mentions(texture=False, color=False)
    assert words_of_things(Thing("arrow", "red"), bare) == "an arrow"
    assert words_of_things(Thing("hourglass", "red"), bare) == "an hourglass"
    assert words_of_things(Thing("hourglass", "red", count=2), bare) == "two hourglasses"
    names = [*SHAPES, *COLORS, *TEXTURES]
    assert [name for name in names if name[0] in "aeiouh"] == ["heart", "arrow", "hourglass"]
