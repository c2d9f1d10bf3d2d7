"""Examples come from their own seeds, and held-out ones are held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn_world import examples
from drawn_world.captions import caption
from drawn_world.colors import any_colors
from drawn_world.combinations import HELD_OUT_TEXTURES, is_held_out_pair
from drawn_world.examples import (
    close_up_examples,
    recolored_examples,
    retrieval_examples,
    sample_examples,
    training_example,
    training_examples,
    zero_shot_examples,
)
from drawn_world.painting import Conditions
from drawn_world.scenes import COLORS, LABELS, SHAPES, Ground
from drawn_world.surfaces import PAINTS
from helpers.caption_reading import read_caption
from helpers.held_out import HELD_OUT_LABELS, is_for_training
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_aimv2.errors import InputError


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**64), st.integers(0, 10_000_000))
def test_an_example_depends_on_seed_split_and_index_alone(seed, index):
    example = training_example(index, seed)
    again = training_example(index, seed)
    assert example == again and example.image(32).tobytes() == again.image(32).tobytes()
    assert len({example, training_example(index, seed, "val"), training_example(index, seed + 1)}) == 3


def test_training_never_shows_or_names_what_is_held_out():
    told = []
    for example in training_examples(2000, seed=5):
        assert is_for_training(example.scene)
        told.append(f"{example.caption} ".replace("spotted", "dotted").replace("chequered", "checkered"))
    for label in HELD_OUT_LABELS:
        plural = f"{label}es" if label.endswith("s") else f"{label}s"
        assert not any(f" {name} " in f" {text}" for text in told for name in (label, plural))
    for shape, texture in HELD_OUT_TEXTURES:
        assert not any(f"{texture} {shape}" in text for text in told)
    assert sum(text.strip() in LABELS for text in told) > 100  # bare labels are frequent


def test_close_ups_show_one_kind_of_thing_and_hold_out_the_same():
    found = close_up_examples(480)
    assert found[:30] == close_up_examples(30)
    for example in found:
        assert example.scene.other is None and is_for_training(example.scene)
        assert example.scene.thing.shape in example.caption.split()
    assert found[0].image(84).size == (42, 42)


def test_dyed_examples_hold_out_the_same_and_tell_no_colour_that_is_not_there():
    found = recolored_examples(480)
    assert found[:30] == recolored_examples(30) and len({example.seed for example in found}) == 480
    assert [example.recolored for example in found[:4]] == ["everything", "ground"] * 2
    for example in found:
        assert is_for_training(example.scene)  # its textures; of its colours see test_dyes
        assert "background" not in example.caption
        told = set(example.caption.split()) & set(COLORS)
        assert told <= (
            {thing.color for thing in example.scene.things} if example.recolored == "ground" else set()
        )
    assert (
        sum(one.scene.thing.color in one.caption.split() for one in found if one.recolored == "ground") > 150
    )
    bare = sum(example.caption in {*SHAPES, *(f"a {shape}" for shape in SHAPES)} for example in found)
    assert 50 < bare < 300


@pytest.mark.parametrize("recolored", ["ground", "everything"])
def test_a_dyed_image_is_the_same_but_for_its_colours(recolored):
    example = next(one for one in recolored_examples(200) if one.scene.thing.count == 4)
    scene = replace(
        example.scene, thing=replace(example.scene.thing, texture="plain"), ground=Ground("grey", "even")
    )
    clear = Conditions(0, 0, 0, 0, 0)
    other, own = (
        np.asarray(replace(example, scene=scene, recolored=how).image(84, clear), int)
        for how in (recolored, "nothing")
    )
    thing = np.abs(own - np.median(own, axis=(0, 1))).max(axis=2) > 20
    colors = any_colors(scene, example.seed, keep_things=recolored == "ground")
    ((fill, _),) = colors.things.values()
    for where, expected in ((thing, fill), (~thing, colors.ground[0])):
        assert np.abs(np.median(other[where], axis=0) - expected).max() < 15
    assert 0.05 < thing.mean() < 0.6
    assert (fill == PAINTS[scene.thing.color]) == (recolored == "ground")


def test_zero_shot_examples_take_turns_and_have_one_right_label():
    found = zero_shot_examples(45, seed=1)
    assert found == zero_shot_examples(60, seed=1)[:45]
    assert sorted(example.caption for example in found) == sorted(HELD_OUT_LABELS * 3)
    for example in found:
        assert example.scene.things == (example.scene.thing,)
        assert example.caption == example.scene.thing.label and is_held_out_pair(example.scene.thing)


def test_retrieval_examples_are_of_different_held_out_scenes():
    found = retrieval_examples(300)
    assert found == retrieval_examples(310)[:300]
    told = {example.caption for example in found}
    assert len(
        told | {caption(example.scene.reversed()) for example in found if example.scene.other}
    ) == 300 + sum(example.scene.other is not None for example in found)
    for example in found:
        assert read_caption(example.caption) == example.scene
        assert is_held_out_pair(example.scene.thing)


@pytest.mark.parametrize("count", [0, 1, 4, 12, 40])
def test_the_images_show_held_out_combinations_of_every_kind(count):
    examples = sample_examples(count)
    assert len(examples) == count
    assert all(is_held_out_pair(one.scene.thing) for one in examples)
    assert sum(one.scene.other is not None for one in examples) == count - round(2 / 3 * count)
    assert len({one.seed for one in examples}) == count
    assert sample_examples(count) == examples


def test_shapes_and_colours_come_twice_only_when_all_have_come():
    alone = [one.scene.thing.label for one in sample_examples(18) if one.scene.other is None]
    assert len(set(alone)) == len(alone) == 12
    alone = [one.scene.thing.label for one in sample_examples(45) if one.scene.other is None]
    assert sorted({alone.count(label) for label in alone}) == [2]


def test_another_seed_shows_others():
    assert sample_examples(6, 1) != sample_examples(6, 0)


def test_refuses_counts_that_cannot_be():
    for make in (
        training_examples,
        close_up_examples,
        recolored_examples,
        zero_shot_examples,
        retrieval_examples,
        sample_examples,
    ):
        with pytest.raises(InputError, match="the count is -1, but has to be 0 or more"):
            make(-1)


def test_refuses_more_retrieval_examples_than_there_are_scenes(monkeypatch):
    monkeypatch.setattr(examples, "held_out_scene", lambda rng: training_example(0).scene)
    with pytest.raises(
        InputError, match="only 1 different scenes were found for retrieval, not 3: ask for fewer"
    ):
        retrieval_examples(3)


def test_the_world_stays_the_one_that_the_checkpoint_was_trained_on():
    """Change these with new weights alone."""
    drawn = [
        *training_examples(4),
        *close_up_examples(2),
        *zero_shot_examples(2),
        *retrieval_examples(2),
        *recolored_examples(3),
        training_example(1).named(),
    ]
    assert [example.caption for example in drawn] == [
        "a heart",
        "on a grainy beige background, a big chequered cyan triangle below a small plain cyan crescent",
        "a green star",
        "a purple hourglass",
        "a purple star",
        "a black crescent",
        "brown arrow",
        "purple circle",
        "a large checkered white diamond below a large checkered pink heart on a speckled black background",
        "four large plain pink triangles on a black background",
        "a large dotted arrow in the top right",
        "blue triangle",
        "three large striped squares",
        "a large checkered cyan triangle below a small plain cyan crescent on a speckled beige background",
    ]
    means = np.array([np.asarray(example.image(84), float).mean((0, 1)) for example in drawn])
    expected = [
        (36.8, 52.0, 99.5),
        (222.4, 225.2, 182.9),
        (224.2, 233.0, 223.2),
        (206.6, 179.1, 156.9),
        (223.0, 181.9, 179.9),
        (142.4, 180.2, 149.9),
        (203.9, 177.4, 147.7),
        (43.5, 31.7, 50.2),
        (56.0, 57.2, 55.8),
        (70.5, 44.0, 65.0),
        (113.8, 11.6, 153.4),
        (34.8, 42.9, 38.5),
        (173.7, 185.2, 173.8),
        (222.4, 225.2, 182.9),
    ]
    np.testing.assert_allclose(means, expected, atol=0.5)  # another Pillow may blur a little differently
