"""Colours with and without a name: for things that are to be known by their shape alone, and for grounds."""

from __future__ import annotations

import math
import random
from itertools import combinations

from .combinations import HELD_OUT_PAIRS
from .scenes import Scene, Thing
from .surfaces import PAINTS, TINT, Color, Colors, Sides, distance, ink_for, mix, sides_of, stands_out

LEAST_STEP, MOST_STEP = (
    90.0,
    270.0,
)  # in RGB, from a ground to a thing; on grounds with a name it is 160 or more
LEAST_INKED = 50.0  # from a thing to the ink of its texture
GREYISH = 0.5  # the share of grounds that are nearly grey, and of things that are just darker or lighter
TINGE = 12.0  # by how much a channel of a nearly grey colour, or step, differs from grey at most
TRIES = 40  # to find a colour on a ground, before another ground is taken
APART = min(distance(*two) for two in combinations(PAINTS.values(), 2))  # of the paints least apart


def any_colors(scene: Scene, seed: int | str, *, keep_things: bool = False) -> Colors:
    """Any colours for the ground of a scene, and for the things on it unless these keep their own.

    Things can just be told from the ground; the ink of a texture may come near to it. Neither a colour without a name
    of a thing nor that of its ink comes near to a paint that training never shows its shape in, before each image
    makes them a little different (`surfaces.jittered`). The ink on a thing in its own colour is half that colour, and
    may be any.

    Args:
        scene: what is painted.
        seed: the same gives the same colours.
        keep_things: whether things keep the colours that the scene tells of.
    """
    rng = random.Random(f"dye/{seed}")
    while True:
        sides = sides_of(_ground(rng), scene.ground.finish)
        found = {
            thing: _kept(thing, sides) if keep_things else _dyed(thing, sides, rng) for thing in scene.things
        }
        colors = {thing: both for thing, both in found.items() if both is not None}
        if len(colors) == len(found):
            return Colors(sides, colors)


def _any(rng: random.Random) -> Color:
    return rng.uniform(0, 255), rng.uniform(0, 255), rng.uniform(0, 255)


def _ground(rng: random.Random) -> Color:
    if rng.random() >= GREYISH:
        return _any(rng)
    grey = rng.uniform(TINGE, 255 - TINGE)
    return _shifted((grey, grey, grey), 0, rng)


def _shifted(color: Color, by: float, rng: random.Random) -> Color:
    """A colour with nearly the same added to each channel."""
    red, green, blue = (x + by + rng.uniform(-TINGE, TINGE) for x in color)
    return red, green, blue


def _kept(thing: Thing, sides: Sides) -> tuple[Color, Color] | None:
    """A thing's own colours, unless it cannot be told from the ground."""
    fill = PAINTS[thing.color]
    return (fill, ink_for(fill, sides)) if stands_out(fill, sides, LEAST_STEP) else None


def _dyed(thing: Thing, sides: Sides, rng: random.Random) -> tuple[Color, Color] | None:
    """Any colours of a thing and of its ink that fit the ground, if such are found."""
    for _ in range(TRIES):
        fill = _step(sides[0], rng.uniform(LEAST_STEP, MOST_STEP), rng)
        ink = mix(fill, _any(rng), TINT)
        if (
            all(0 <= x <= 255 for x in fill)
            and stands_out(fill, sides, LEAST_STEP)
            and distance(fill, ink) >= LEAST_INKED
            and not _is_near_held_out(thing.shape, fill)
            and not _is_near_held_out(thing.shape, ink)
        ):
            return fill, ink
    return None


def _step(color: Color, length: float, rng: random.Random) -> Color:
    """A colour about so far from another, which may lie beyond what can be painted."""
    if rng.random() < GREYISH:
        return _shifted(color, rng.choice((-1, 1)) * length / math.sqrt(3), rng)
    way = [rng.gauss(0, 1) for _ in color]
    scale = length / math.hypot(*way)
    red, green, blue = (x + scale * step for x, step in zip(color, way, strict=True))
    return red, green, blue


def _is_near_held_out(shape: str, color: Color) -> bool:
    """Whether a colour is nearest to a held-out paint of a shape, or nearer than two paints are to each other."""
    away = {name: distance(paint, color) for name, paint in PAINTS.items()}
    nearest = min(away, key=away.__getitem__)
    return any((shape, name) in HELD_OUT_PAIRS and (name == nearest or away[name] < APART) for name in PAINTS)
