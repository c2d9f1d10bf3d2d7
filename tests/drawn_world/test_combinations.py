"""The split into what training shows and what it never does."""

from __future__ import annotations

from drawn_world.combinations import HELD_OUT_PAIRS, HELD_OUT_TEXTURES, is_held_out
from drawn_world.scenes import COLORS, LABELS, SHAPES, TEXTURES, Thing
from helpers.held_out import HELD_OUT_LABELS


def test_about_an_eighth_of_the_pairs_is_held_out():
    assert len(HELD_OUT_PAIRS) == len(HELD_OUT_LABELS) == 15
    assert set(HELD_OUT_LABELS) < set(LABELS)
    assert "pink triangle" in HELD_OUT_LABELS  # the split may not move: a trained checkpoint depends on it
    assert sorted(HELD_OUT_PAIRS)[0] == ("arrow", "brown")


def test_every_part_is_held_out_somewhere_and_mostly_seen():
    for place, names in enumerate((SHAPES, COLORS)):
        times = [sum(pair[place] == name for pair in HELD_OUT_PAIRS) for name in names]
        assert min(times) >= 1 and max(times) <= 2


def test_textures_of_some_shapes_are_held_out_but_never_plain():
    assert len(HELD_OUT_TEXTURES) == 6
    assert {texture for _, texture in HELD_OUT_TEXTURES} == set(TEXTURES) - {"plain"}
    shape, texture = min(HELD_OUT_TEXTURES)
    seen = next(color for color in COLORS if (shape, color) not in HELD_OUT_PAIRS)
    assert is_held_out(Thing(shape, seen, texture))
    assert not is_held_out(Thing(shape, seen, "plain"))
