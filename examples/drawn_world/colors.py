"""Random colours for grounds and for things that a caption names by shape alone."""

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
)  # distance in RGB of a thing from its ground; 160 or more on named grounds
LEAST_INKED = 50.0  # distance of a thing from the ink of its texture
GREYISH = 0.5  # the share of grounds that are nearly grey, and of things that are only darker or lighter
TINGE = 12.0  # the most that a channel of a nearly grey colour differs from grey
TRIES = 40  # colours to try on a ground before another ground is drawn
APART = min(distance(*two) for two in combinations(PAINTS.values(), 2))  # the least distance of two paints


def any_colors(scene: Scene, seed: int | str, *, keep_things: bool = False) -> Colors:
    """Random colours for the ground of a scene, and for its things unless these keep their own.

    Things stand out from the ground; the ink of a texture may not. Neither the random colour of a thing nor its ink
    comes near to a paint that is held out for the shape, before `surfaces.jittered` changes them a little. The ink on
    a thing in its own colour is half that colour, and may come near to a held-out paint.

    Args:
        scene: the scene.
        seed: the same seed gives the same colours.
        keep_things: whether things keep the colours of the scene.
    """
    rng = random.Random(f"dye/{seed}")  # a seed of the trained checkpoint: never change it
    while True:
        sides = sides_of(_ground(rng), scene.ground.finish)
        drawn = {
            thing: _own_color(thing, sides) if keep_things else _random_color(thing, sides, rng)
            for thing in scene.things
        }
        colors = {thing: both for thing, both in drawn.items() if both is not None}
        if len(colors) == len(drawn):
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


def _own_color(thing: Thing, sides: Sides) -> tuple[Color, Color] | None:
    """The own colour and ink of a thing; None if they do not stand out from the ground."""
    fill = PAINTS[thing.color]
    return (fill, ink_for(fill, sides)) if stands_out(fill, sides, LEAST_STEP) else None


def _random_color(thing: Thing, sides: Sides, rng: random.Random) -> tuple[Color, Color] | None:
    """Random colours of a thing and its ink that stand out from the ground; None after too many tries."""
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
    """A colour at about a distance from another; channels may be out of range."""
    if rng.random() < GREYISH:
        return _shifted(color, rng.choice((-1, 1)) * length / math.sqrt(3), rng)
    way = [rng.gauss(0, 1) for _ in color]
    scale = length / math.hypot(*way)
    red, green, blue = (x + scale * step for x, step in zip(color, way, strict=True))
    return red, green, blue


def _is_near_held_out(shape: str, color: Color) -> bool:
    """Whether a colour is nearest to a held-out paint of the shape, or nearer to it than ``APART``."""
    away = {name: distance(paint, color) for name, paint in PAINTS.items()}
    nearest = min(away, key=away.__getitem__)
    return any((shape, name) in HELD_OUT_PAIRS and (name == nearest or away[name] < APART) for name in PAINTS)
