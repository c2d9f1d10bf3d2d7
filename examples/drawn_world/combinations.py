"""Which combinations training never shows, in images or in words.

The split is fixed: another seed draws other scenes, but holds out the same. Every shape, colour and texture is
seen, only not together with each other one.
"""

from __future__ import annotations

from .scenes import COLORS, SHAPES, TEXTURES, Thing


def _held_out_pairs() -> frozenset[tuple[str, str]]:
    """15 of the 120: one for each shape and a second for every fourth, one or two for each colour."""
    first = [(shape, COLORS[3 * number % 10]) for number, shape in enumerate(SHAPES)]
    second = [(SHAPES[number], COLORS[(3 * number + 5) % 10]) for number in range(0, len(SHAPES), 4)]
    return frozenset(first + second)


def _held_out_textures() -> frozenset[tuple[str, str]]:
    """One texture for every second shape, never `plain`."""
    return frozenset((SHAPES[number], TEXTURES[1 + number % 3]) for number in range(1, len(SHAPES), 2))


HELD_OUT_PAIRS = _held_out_pairs()  # (shape, colour)
HELD_OUT_TEXTURES = _held_out_textures()  # (shape, texture)


def is_held_out_pair(thing: Thing) -> bool:
    """Whether a thing has a shape and a colour that training never shows together."""
    return (thing.shape, thing.color) in HELD_OUT_PAIRS


def is_held_out(thing: Thing) -> bool:
    """Whether training never shows such a thing, for its colour or for its texture."""
    return is_held_out_pair(thing) or (thing.shape, thing.texture) in HELD_OUT_TEXTURES
