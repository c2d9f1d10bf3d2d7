"""Colours with and without a name, for things that are to be known by their shape alone."""

from __future__ import annotations

import random
from itertools import combinations

from .combinations import HELD_OUT_PAIRS
from .scenes import Ground, Scene, Thing
from .surfaces import PAINTS, Color, distance, ink_for, stands_out

LEAST_CONTRAST = 110.0  # with the ground; less than things in their own colours have
APART = min(distance(*two) for two in combinations(PAINTS.values(), 2))  # of the paints least apart


def dyes(scene: Scene, seed: int | str) -> dict[Thing, Color]:
    """A colour for each kind of thing in a scene, the same for the same seed."""
    rng = random.Random(f"dye/{seed}")
    return {thing: dye(thing.shape, scene.ground, rng) for thing in scene.things}


def dye(shape: str, ground: Ground, rng: random.Random) -> Color:
    """Any colour for a shape, with or without a name, that can just be told from the ground.

    Neither it nor the ink of a texture on it comes near to a paint that training never shows the shape in.
    """
    while True:
        color = (rng.uniform(0, 255), rng.uniform(0, 255), rng.uniform(0, 255))
        inked = ink_for(color, ground)
        if stands_out(color, ground, LEAST_CONTRAST) and not (
            _is_held_out(shape, color) or _is_held_out(shape, inked)
        ):
            return color


def _is_held_out(shape: str, color: Color) -> bool:
    """Whether a colour is nearest to a held-out paint of a shape, or nearer than two paints are to each other."""
    away = {name: distance(paint, color) for name, paint in PAINTS.items()}
    nearest = min(away, key=away.__getitem__)
    return any((shape, name) in HELD_OUT_PAIRS and (name == nearest or away[name] < APART) for name in PAINTS)
