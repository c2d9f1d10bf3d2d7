"""Where the things of a scene lie: whole, apart from each other, and as the scene says."""

from __future__ import annotations

import random
from dataclasses import dataclass

from .scenes import POSITIONS, Scene, Thing

DIAMETERS = {
    "small": (0.31, 0.33),
    "medium": (0.385, 0.405),
    "large": (0.46, 0.48),
}  # in sides of the image
MARGIN = 0.02  # that stays free at the edges, in sides of the image
PLAY = 0.04  # by how much a thing may lie off its place
SLANT = 0.12  # by how much two things may lie off one line


@dataclass(frozen=True)
class Place:
    """A single thing in an image.

    Attributes:
        thing: what it is; its count plays no part any more.
        x: of its middle, from the left, in sides of the image.
        y: of its middle, from the top.
        diameter: of the circle around it.
    """

    thing: Thing
    x: float
    y: float
    diameter: float


def places(scene: Scene, rng: random.Random) -> list[Place]:
    """Where each single thing lies, whole within the image.

    Two or more of a kind lie in different quarters. The circles around two kinds do not meet.
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
    """A coordinate near the beginning (0), the middle (1) or the end (2)."""
    if step == 1:
        return 0.5 + rng.uniform(-PLAY, PLAY)
    near = MARGIN + diameter / 2 + rng.uniform(0, PLAY)
    return near if step == 0 else 1 - near


def _several(thing: Thing, rng: random.Random) -> list[Place]:
    quarters = rng.sample([(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)], thing.count)
    found = []
    for x, y in quarters:
        diameter = rng.uniform(*DIAMETERS[thing.size])
        play = min(0.25 - diameter / 2, 2 * PLAY)
        found.append(Place(thing, x + rng.uniform(-play, play), y + rng.uniform(-play, play), diameter))
    return found


def _pair(thing: Thing, other: Thing, relation: str, rng: random.Random) -> list[Place]:
    """Two things on one line, more or less, along the axis of the relation."""
    first, second = (thing, other) if relation in ("left of", "above") else (other, thing)
    diameters = [rng.uniform(*DIAMETERS[each.size]) for each in (first, second)]
    free = 1 - 2 * MARGIN - sum(diameters)  # what is left of the line
    cuts = sorted(rng.uniform(0, free) for _ in range(2))
    starts = (MARGIN + cuts[0], MARGIN + cuts[1] + diameters[0])
    slant = min(SLANT, 0.5 - MARGIN - max(diameters) / 2)
    found = []
    for each, diameter, start in zip((first, second), diameters, starts, strict=True):
        along, across = start + diameter / 2, 0.5 + rng.uniform(-slant, slant)
        x, y = (along, across) if relation in ("left of", "right of") else (across, along)
        found.append(Place(each, x, y, diameter))
    return found
