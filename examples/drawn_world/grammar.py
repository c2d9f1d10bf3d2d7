"""Random scenes of things that stand out from their ground, with and without held-out combinations."""

from __future__ import annotations

import random
from dataclasses import replace

from .combinations import HELD_OUT_PAIRS, is_held_out
from .scenes import (
    COLORS,
    COUNTS,
    FINISHES,
    GROUND_COLORS,
    POSITIONS,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Ground,
    Scene,
    Thing,
)
from .surfaces import goes_on

ALONE, SEVERAL = (
    0.4,
    0.25,
)  # shares of scenes with one thing and with several of a kind; others have two kinds
SORTED_PAIRS = sorted(HELD_OUT_PAIRS)


def one_kind_scene(rng: random.Random) -> Scene:
    """A scene with one thing or several of a kind, without a held-out combination."""
    return _around(_training_thing(rng), rng, rng.uniform(0, ALONE + SEVERAL))


def training_scene(rng: random.Random) -> Scene:
    """Any scene without a held-out combination."""
    return _around(_training_thing(rng), rng, rng.random())


def zero_shot_scene(pair: tuple[str, str], rng: random.Random) -> Scene:
    """A scene with one thing or several of a kind, of a shape and colour."""
    return _around(_thing(pair, rng), rng, rng.uniform(0, ALONE + SEVERAL))


def held_out_scene(rng: random.Random) -> Scene:
    """Any scene whose first thing has a held-out shape and colour; a second thing is not held out."""
    return _around(_thing(rng.choice(SORTED_PAIRS), rng), rng, rng.random())


def _thing(pair: tuple[str, str], rng: random.Random) -> Thing:
    return Thing(*pair, texture=rng.choice(TEXTURES), size=rng.choice(SIZES))


def _training_thing(rng: random.Random) -> Thing:
    while True:
        thing = _thing((rng.choice(SHAPES), rng.choice(COLORS)), rng)
        if not is_held_out(thing):
            return thing


def _around(thing: Thing, rng: random.Random, chance: float) -> Scene:
    """The scene of a thing; ``chance``, 0 to 1, chooses its kind."""
    if chance < ALONE:
        return Scene(thing, rng.choice(_grounds((thing,))), position=rng.choice(POSITIONS))
    if chance < ALONE + SEVERAL:
        thing = replace(thing, count=rng.choice(COUNTS[1:]))
        return Scene(thing, rng.choice(_grounds((thing,))))
    while True:
        other = _training_thing(rng)
        if other.label != thing.label and (grounds := _grounds((thing, other))):
            return Scene(thing, rng.choice(grounds), relation=rng.choice(tuple(RELATIONS)), other=other)


def _grounds(things: tuple[Thing, ...]) -> list[Ground]:
    """The grounds that every thing stands out from."""
    grounds = (Ground(color, finish) for color in GROUND_COLORS for finish in FINISHES)
    return [ground for ground in grounds if all(goes_on(thing, ground) for thing in things)]
