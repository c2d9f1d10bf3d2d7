"""Images show their scene, are the same for the same seed, and are covered only a little."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from drawn_world import painting
from drawn_world.grammar import one_kind_scene, training_scene
from drawn_world.painting import COVERED, Conditions, close_up, paint
from drawn_world.placement import Place, places
from drawn_world.scenes import COLORS, SHAPES, SIZES, TEXTURES, Ground, Scene, Thing
from drawn_world.surfaces import PAINTS, ground_colors, ground_pixels
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_aimv2.errors import InputError

CLEAR = Conditions(turn=0, light=0, blur=0, noise=0, occlusion=0)
SCENE = Scene(Thing("triangle", "red", "striped", "large"), Ground("grey"), "centre")


def pixels(scene: Scene, side: int = 84, seed: int = 0, conditions: Conditions = CLEAR) -> np.ndarray:
    return np.asarray(paint(scene, side, seed, conditions), dtype=np.float32)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**64), st.integers(28, 150))
def test_the_same_seed_gives_the_same_pixels(seed, side):
    scene = training_scene(random.Random(seed))
    first, again = (paint(scene, side, seed) for _ in range(2))
    assert first.size == (side, side) and first.mode == "RGB"
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != paint(scene, side, seed + 1).tobytes()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**64))
def test_a_close_up_is_cut_out_of_the_image_with_a_whole_thing_in_it(seed):
    scene = one_kind_scene(random.Random(seed))
    whole, near = pixels(scene, seed=seed), np.asarray(close_up(scene, 84, seed, CLEAR), dtype=np.float32)
    assert near.shape == (42, 42, 3)
    cuts = [(top, left) for top in range(43) for left in range(43)]
    (top, left), *_ = [at for at in cuts if (whole[at[0] : at[0] + 42, at[1] : at[1] + 42] == near).all()]
    rng = random.Random(f"paint/{seed}")
    ground_pixels(ground_colors(scene.ground), scene.ground.finish, 84, rng)
    found = places(scene, rng)
    inside = [
        left - 1 <= (place.x - place.diameter / 2) * 84
        and (place.x + place.diameter / 2) * 84 <= left + 43
        and top - 1 <= (place.y - place.diameter / 2) * 84
        and (place.y + place.diameter / 2) * 84 <= top + 43
        for place in found
    ]
    assert any(inside)


@pytest.mark.parametrize("color", COLORS)
def test_a_thing_has_its_colour(color):
    ground = Ground("mint" if color == "white" else "white")
    seen = pixels(Scene(Thing("square", color, size="large"), ground, "centre"))[42, 42]
    assert np.abs(seen - PAINTS[color]).max() < 15


def test_shapes_textures_and_sizes_are_seen():
    for field, names in {"shape": SHAPES, "texture": TEXTURES, "size": SIZES}.items():
        seen = [pixels(replace(SCENE, thing=replace(SCENE.thing, **{field: name}))) for name in names]
        for number, one in enumerate(seen):
            for two in seen[:number]:
                assert (np.abs(one - two).max(axis=2) > 60).mean() > 0.01, field


@pytest.mark.parametrize("name", ["turn", "light", "blur", "noise", "occlusion"])
def test_every_condition_changes_images(name):
    harder = replace(CLEAR, **{name: 1.0 if name == "occlusion" else getattr(Conditions(), name)})
    changed = sum((pixels(SCENE, seed=s, conditions=harder) != pixels(SCENE, seed=s)).any() for s in range(8))
    assert changed >= 2


@pytest.mark.parametrize("shape", SHAPES)
def test_at_most_a_quarter_of_a_thing_is_covered(shape):
    rng = random.Random(shape)
    for _ in range(20):
        patch = painting._patch(Place(Thing(shape, "red"), 0.5, 0.5, 0.3), 84, rng.uniform(-45, 45))
        covered = np.count_nonzero(patch.mask & painting._cover(patch, rng))
        assert covered <= COVERED * np.count_nonzero(patch.mask)


@pytest.mark.parametrize("side", [0, 27, 1025])
def test_refuses_a_side_out_of_range(side):
    with pytest.raises(InputError, match=f"the side is {side}, but has to be from 28 to 1,024"):
        paint(SCENE, side, 0)


@pytest.mark.parametrize(("name", "value"), [("occlusion", 1.5), ("noise", -1), ("turn", float("nan"))])
def test_refuses_conditions_out_of_range(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}, but has to be from 0 to"):
        Conditions(**{name: value})
