"""What a scene may hold, and what is refused."""

from __future__ import annotations

import pytest
from drawn_world.scenes import COLORS, LABELS, SHAPES, Ground, Scene, Thing

from mlx_aimv2.errors import InputError

THING, OTHER, GROUND = Thing("triangle", "red"), Thing("circle", "blue"), Ground("grey")


def test_labels_are_every_colour_of_every_shape():
    assert len(LABELS) == len(set(LABELS)) == 120
    assert {tuple(label.split()) for label in LABELS} == {(c, s) for c in COLORS for s in SHAPES}
    assert THING.label == "red triangle"


def test_the_reverse_of_a_scene_tells_the_same_from_the_other_thing():
    scene = Scene(THING, GROUND, relation="left of", other=OTHER)
    assert scene.reversed() == Scene(OTHER, GROUND, relation="right of", other=THING)
    assert scene.reversed().reversed() == scene
    alone = Scene(THING, GROUND, position="top")
    assert alone.reversed() == alone and alone.things == (THING,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Thing("blob", "red"), "the shape is 'blob', but has to be one of circle, square, triangle"),
        (lambda: Thing("star", "mauve"), "the color is 'mauve', but has to be one of red, yellow"),
        (lambda: Thing("star", "red", "furry"), "the texture is 'furry', but has to be one of plain"),
        (lambda: Thing("star", "red", size="huge"), "the size is 'huge', but has to be one of small"),
        (lambda: Thing("star", "red", count=5), "the count is 5, but has to be one of 1, 2, 3, 4"),
        (lambda: Ground("red"), "the color of the ground is 'red', but has to be one of white"),
        (lambda: Ground("grey", "wet"), "the finish is 'wet', but has to be one of even"),
        (lambda: Scene(THING, GROUND), "a position exactly if it holds a single thing"),
        (lambda: Scene(THING, GROUND, "middle"), "the position is 'middle', but has to be one of top left"),
        (lambda: Scene(THING, GROUND, relation="above"), "both a relation and another thing, or neither"),
        (lambda: Scene(THING, GROUND, other=OTHER), "both a relation and another thing, or neither"),
        (
            lambda: Scene(THING, GROUND, relation="near", other=OTHER),
            "the relation is 'near', but has to be one of left of",
        ),
        (
            lambda: Scene(Thing("star", "red", count=2), GROUND, relation="above", other=OTHER),
            "a scene with a relation holds one thing of each kind",
        ),
        (
            lambda: Scene(THING, GROUND, "top", relation="above", other=OTHER),
            "a position exactly if it holds a single thing",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(InputError, match=message):
        make()
