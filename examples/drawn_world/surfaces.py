"""Paints, textures of things and finishes of grounds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .scenes import FINISHES, Ground, Scene, Thing

Color = tuple[float, float, float]  # red, green, blue, each 0 to 255
Sides = tuple[Color, Color]  # the colours at the two sides of a ground
Pixels = NDArray[np.float32]

PAINTS: dict[str, Color] = {
    "red": (214, 36, 40),
    "yellow": (246, 214, 36),
    "green": (40, 150, 60),
    "cyan": (50, 205, 220),
    "blue": (36, 80, 215),
    "purple": (128, 46, 175),
    "pink": (247, 130, 192),
    "brown": (122, 72, 34),
    "black": (22, 22, 24),
    "white": (250, 250, 250),
}
GROUNDS: dict[str, Color] = {
    "white": (246, 246, 243),
    "grey": (152, 152, 154),
    "black": (20, 20, 22),
    "beige": (226, 205, 168),
    "navy": (24, 36, 88),
    "mint": (178, 230, 200),
}
INKS: tuple[Color, ...] = ((250, 250, 250), (20, 20, 20))
GREY: Color = (122, 122, 122)  # the ink on black and white, which could look like each other with these
TINT = 0.5  # the share of ink in a texture; the rest is the thing's own colour
FADE = 0.3  # the share of its colour that a fading ground loses at its far side
LEAST_CONTRAST = 160.0  # distance in RGB of a thing from both sides of its ground
JITTER = 9.0  # the most that a channel differs from image to image
GRAIN = 28.0  # the most that a grain of a speckled ground differs
GRAINS = 32  # per side


@dataclass(frozen=True)
class Colors:
    """The colours of an image.

    Attributes:
        ground: the colours at the two sides of the ground.
        things: for each kind of thing, its colour and the colour of its texture's ink.
    """

    ground: Sides
    things: Mapping[Thing, tuple[Color, Color]]


def own_colors(scene: Scene) -> Colors:
    """The colours of a scene."""
    sides = ground_colors(scene.ground)
    fills = {thing: PAINTS[thing.color] for thing in scene.things}
    return Colors(sides, {thing: (fill, ink_for(fill, sides)) for thing, fill in fills.items()})


def distance(one: Color, two: Color) -> float:
    """The distance of two colours in RGB, 0 to 442."""
    return math.dist(one, two)


def ground_colors(ground: Ground) -> Sides:
    """The colours at the two sides of a ground."""
    return sides_of(GROUNDS[ground.color], ground.finish)


def sides_of(color: Color, finish: str) -> Sides:
    """The colours at the two sides of a ground of a colour and a finish."""
    if finish != "fading":
        return color, color
    far = INKS[0] if sum(color) < 200 else INKS[1]  # dark ones get lighter
    return color, mix(color, far, FADE)


def goes_on(thing: Thing, ground: Ground) -> bool:
    """Whether a thing stands out from its ground."""
    return stands_out(PAINTS[thing.color], ground_colors(ground), LEAST_CONTRAST)


def stands_out(color: Color, sides: Sides, least: float) -> bool:
    """Whether the distance of a colour from both sides of a ground is at least ``least``, in RGB."""
    return all(distance(color, other) >= least for other in sides)


def mix(one: Color, two: Color, share: float) -> Color:
    """A mixture with ``share`` of the second colour, 0 to 1."""
    red, green, blue = (a + share * (b - a) for a, b in zip(one, two, strict=True))
    return red, green, blue


def jittered(color: Color, rng: random.Random) -> Color:
    """A colour that differs a little."""
    red, green, blue = (min(max(x + rng.uniform(-JITTER, JITTER), 0), 255) for x in color)
    return red, green, blue


def ink_for(color: Color, sides: Sides) -> Color:
    """The ink of a texture: the thing's colour, darker or lighter, whichever stands out more from thing and ground.

    Black and white have only one choice.
    """
    if color in (PAINTS["black"], PAINTS["white"]):
        return mix(color, GREY, TINT)
    others = (color, *sides)
    return mix(color, max(INKS, key=lambda ink: min(distance(ink, other) for other in others)), TINT)


def _striped(u: Pixels, v: Pixels) -> NDArray[np.bool_]:
    return u % 1 < 0.42


def _dotted(u: Pixels, v: Pixels) -> NDArray[np.bool_]:
    return (u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.095


def _checkered(u: Pixels, v: Pixels) -> NDArray[np.bool_]:
    return (u % 1 < 0.5) ^ (v % 1 < 0.5)


INKED: dict[str, Callable[[Pixels, Pixels], NDArray[np.bool_]]] = {
    "striped": _striped,
    "dotted": _dotted,
    "checkered": _checkered,
}
PERIODS = {"striped": 0.22, "dotted": 0.25, "checkered": 0.33}  # in diameters of a medium thing
COARSER = {"small": 1.25, "medium": 1.0, "large": 0.85}  # factors of the period


def texture_ink(thing: Thing, x: Pixels, y: Pixels, rng: random.Random) -> NDArray[np.bool_]:
    """The ink of a thing's texture.

    Args:
        thing: the thing.
        x: (1, n), distance from the middle of the thing to the right, in its diameters.
        y: (n, 1), distance downwards.
        rng: for the angle and offset of the texture.

    Returns:
        (n, n), true on ink.
    """
    if thing.texture not in INKED:
        return np.zeros((y.size, x.size), dtype=bool)
    angle = rng.uniform(0, math.pi)
    scale = 1 / (PERIODS[thing.texture] * COARSER[thing.size])
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    u: Pixels = x * np.float32(cosine) + y * np.float32(sine) + np.float32(rng.random())
    v: Pixels = y * np.float32(cosine) - x * np.float32(sine) + np.float32(rng.random())
    return INKED[thing.texture](u, v)


def ground_pixels(sides: Sides, finish: str, side: int, rng: random.Random) -> Pixels:
    """A ground without things.

    Args:
        sides: the colours at its two sides.
        finish: one of `scenes.FINISHES`.
        side: of the image, in pixels.
        rng: for direction, jitter and grain.

    Returns:
        (side, side, 3) float32, 0 to 255; speckled ones exceed this a little.
    """
    near, far = (np.asarray(jittered(color, rng), np.float32) for color in sides)
    pixels = np.empty((side, side, 3), np.float32)
    pixels[:] = near
    if finish == FINISHES[1]:
        pixels += slope(side, rng.uniform(0, 2 * math.pi))[..., None] * (far - near)
    elif finish == FINISHES[2]:
        pixels += _grain(side, rng)[..., None]
    return pixels


def slope(side: int, angle: float) -> Pixels:
    """(side, side) values that rise from 0 to 1 along an angle in radians."""
    line = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    cosine, sine = math.cos(angle), math.sin(angle)
    reach = abs(cosine) + abs(sine)
    return (line[None, :] * cosine + line[:, None] * sine) / np.float32(reach) + np.float32(0.5)


def _grain(side: int, rng: random.Random) -> Pixels:
    """(side, side) of square grains."""
    noise = np.random.default_rng(rng.getrandbits(64)).random((GRAINS, GRAINS), np.float32)
    places = np.arange(side) * GRAINS // side
    return (noise[np.ix_(places, places)] - np.float32(0.5)) * np.float32(2 * GRAIN)
