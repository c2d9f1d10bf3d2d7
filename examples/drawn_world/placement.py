"""Places of the things of a scene: inside the image, apart from each other, as the scene defines."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .scenes import POSITIONS, Scene, Thing

# all lengths are shares of the side of the image
DIAMETERS = {"small": (0.31, 0.33), "medium": (0.385, 0.405), "large": (0.46, 0.48)}
MARGIN = 0.02  # free at the edges
PLAY = 0.04  # random shift of a thing
SLANT = 0.12  # random shift of two things across their line


@dataclass(frozen=True)
class Place:
    """The place of a single thing in an image.

    Attributes:
        thing: the thing; its count is not used.
        x: of the middle, from the left, as a share of the side of the image.
        y: of the middle, from the top.
        diameter: of the circle around the thing.
    """

    thing: Thing
    x: float
    y: float
    diameter: float


def places(scene: Scene, rng: random.Random) -> list[Place]:
    """The place of each single thing, inside the image.

    Several things of a kind lie in different quarters. The circles around two kinds do not overlap.
    """
    if scene.other is not None and scene.relation is not None:
        return _pair(scene.thing, scene.other, scene.relation, rng)
    if scene.position is not None:
        return [_single(scene.thing, scene.position, rng)]
    return _several(scene.thing, rng)


def _single(thing: Thing, position: str, rng: random.Random) -> Place:
    row, column = divmod(POSITIONS.index(position), 3)
    diameter = rng.uniform(*DIAMETERS[thing.size])
    x, y = (_along(step, diameter, rng) for step in (column, row))
    return Place(thing, x, y, diameter)


def _along(step: int, diameter: float, rng: random.Random) -> float:
    """A random coordinate near the start (0), the middle (1) or the end (2)."""
    if step == 1:
        return 0.5 + rng.uniform(-PLAY, PLAY)
    near = MARGIN + diameter / 2 + rng.uniform(0, PLAY)
    return near if step == 0 else 1 - near


def _several(thing: Thing, rng: random.Random) -> list[Place]:
    quarters = rng.sample([(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)], thing.count)
    result = []
    for x, y in quarters:
        diameter = rng.uniform(*DIAMETERS[thing.size])
        play = min(0.25 - diameter / 2, 2 * PLAY)
        result.append(Place(thing, x + rng.uniform(-play, play), y + rng.uniform(-play, play), diameter))
    return result


def _pair(thing: Thing, other: Thing, relation: str, rng: random.Random) -> list[Place]:
    """Two things roughly on one line, along the axis of the relation."""
    first, second = (thing, other) if relation in ("left of", "above") else (other, thing)
    diameters = [rng.uniform(*DIAMETERS[each.size]) for each in (first, second)]
    free = 1 - 2 * MARGIN - sum(diameters)  # the free part of the line
    cuts = sorted(rng.uniform(0, free) for _ in range(2))
    starts = (MARGIN + cuts[0], MARGIN + cuts[1] + diameters[0])
    slant = min(SLANT, 0.5 - MARGIN - max(diameters) / 2)
    result = []
    for each, diameter, start in zip((first, second), diameters, starts, strict=True):
        along, across = start + diameter / 2, 0.5 + rng.uniform(-slant, slant)
        x, y = (along, across) if relation in ("left of", "right of") else (across, along)
        result.append(Place(each, x, y, diameter))
    return result
