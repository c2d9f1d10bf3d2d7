"""Held-out combinations of shape and colour or texture, which training never shows or mentions.

The split does not depend on a seed. Training shows every shape, colour and texture, but not in every combination.
"""

from __future__ import annotations

from .scenes import COLORS, SHAPES, TEXTURES, Thing


def _held_out_pairs() -> frozenset[tuple[str, str]]:
    """15 of 120 pairs: one for each shape and a second for every fourth shape, one or two for each colour."""
    first = [(shape, COLORS[3 * number % 10]) for number, shape in enumerate(SHAPES)]
    second = [(SHAPES[number], COLORS[(3 * number + 5) % 10]) for number in range(0, len(SHAPES), 4)]
    return frozenset(first + second)


def _held_out_textures() -> frozenset[tuple[str, str]]:
    """One texture for every second shape, never `plain`."""
    return frozenset((SHAPES[number], TEXTURES[1 + number % 3]) for number in range(1, len(SHAPES), 2))


HELD_OUT_PAIRS = _held_out_pairs()  # (shape, colour)
HELD_OUT_TEXTURES = _held_out_textures()  # (shape, texture)


def is_held_out_pair(thing: Thing) -> bool:
    """Whether the pair of shape and colour is held out."""
    return (thing.shape, thing.color) in HELD_OUT_PAIRS


def is_held_out(thing: Thing) -> bool:
    """Whether the thing is held out, for its colour or for its texture."""
    return is_held_out_pair(thing) or (thing.shape, thing.texture) in HELD_OUT_TEXTURES
