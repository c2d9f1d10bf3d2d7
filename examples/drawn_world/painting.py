"""A scene as an image, under conditions that no caption tells of."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from .outlines import shape_mask
from .placement import Place, places
from .ranges import check_range
from .scenes import Scene
from .surfaces import (
    GREY,
    Color,
    Colors,
    Pixels,
    ground_pixels,
    jittered,
    mix,
    own_colors,
    slope,
    texture_ink,
)

FINER = 3  # things are drawn this many times as large, then reduced
LARGEST = 1024  # side of an image, in pixels
SMALLEST = 28
COVERED = 0.25  # of a thing, at most


@dataclass(frozen=True)
class Conditions:
    """How hard the images are made.

    Attributes:
        turn: degrees by which things are turned at most, either way.
        light: by which share a side of the image is lighter or darker at most, and the whole of it.
        blur: radius at most, in hundredths of the side; half of the images are sharp.
        noise: standard deviation at most, in steps of 255; half of the images have none.
        occlusion: the share of things of which something covers a part, a quarter at most.

    Raises:
        InputError: a value is out of range.
    """

    turn: float = 30.0
    light: float = 0.12
    blur: float = 0.6
    noise: float = 7.0
    occlusion: float = 0.2

    def __post_init__(self) -> None:
        limits = {"turn": 180, "light": 0.5, "blur": 5, "noise": 64, "occlusion": 1}
        for name, limit in limits.items():
            check_range(name, getattr(self, name), 0, limit)


def paint(
    scene: Scene,
    side: int,
    seed: int | str,
    conditions: Conditions | None = None,
    colors: Colors | None = None,
) -> Image.Image:
    """The image of a scene, the same for the same seed.

    Args:
        scene: what is on it.
        side: its width and height in pixels, 28 to 1024.
        seed: of everything that the scene does not say.
        conditions: None for the usual ones.
        colors: None for those that the scene tells of.

    Raises:
        InputError: the side is out of range.
    """
    image, _ = _painted(scene, side, seed, conditions, colors)
    return image


def close_up(scene: Scene, side: int, seed: int | str, conditions: Conditions | None = None) -> Image.Image:
    """A square cut out of the same image, half as wide and high, with one of its things whole in it.

    The largest things may lose a part of a pixel at an edge.

    Args:
        scene: what is on the image.
        side: width and height of the image that it is cut out of, in pixels, 28 to 1024.
        seed: of everything that the scene does not say.
        conditions: None for the usual ones.

    Raises:
        InputError: the side is out of range.
    """
    image, found = _painted(scene, side, seed, conditions, None)
    rng = random.Random(f"close up/{seed}")
    place = rng.choice(found)
    left, top = (_cut(middle, place.diameter, side, rng) for middle in (place.x, place.y))
    return image.crop((left, top, left + side // 2, top + side // 2))


def _cut(middle: float, diameter: float, side: int, rng: random.Random) -> int:
    """Where half a side may begin, in pixels, for a thing to be whole in it."""
    first = max(0, math.ceil((middle + diameter / 2) * side) - side // 2)
    last = min(side - side // 2, math.floor((middle - diameter / 2) * side))
    return rng.randint(first, max(first, last))  # the largest have no room to move


def _painted(
    scene: Scene,
    side: int,
    seed: int | str,
    conditions: Conditions | None,
    colors: Colors | None,
) -> tuple[Image.Image, list[Place]]:
    """The image, and where the things on it lie."""
    check_range("the side", side, SMALLEST, LARGEST)
    conditions = conditions or Conditions()
    rng = random.Random(f"paint/{seed}")
    colors = colors or own_colors(scene)
    canvas = ground_pixels(colors.ground, scene.ground.finish, side, rng)  # (H, W, 3)
    found = places(scene, rng)
    for place in found:
        _stamp(canvas, place, colors, conditions, rng)
    return _photographed(canvas, conditions, rng), found


@dataclass(frozen=True)
class _Patch:
    """The square around a thing, in fine pixels.

    Attributes:
        left: of the square in the image, in pixels.
        top: likewise.
        pixels: its side in the image.
        mask: (n, n) bool, where the thing is.
        x: (1, n), rightwards from the middle of the thing in its diameters.
        y: (n, 1), downwards.
    """

    left: int
    top: int
    pixels: int
    mask: NDArray[np.bool_]
    x: Pixels
    y: Pixels


def _patch(place: Place, side: int, turn: float) -> _Patch:
    diameter = place.diameter * side
    left, top = (math.floor(middle * side - diameter / 2) for middle in (place.x, place.y))
    pixels = min(math.ceil(diameter) + 1, side - max(left, top))
    center = (place.x * side - left) * FINER, (place.y * side - top) * FINER
    mask = shape_mask(place.thing.shape, pixels * FINER, diameter * FINER, center, turn)
    x, y = ((np.arange(pixels * FINER, dtype=np.float32) - at) / (diameter * FINER) for at in center)
    return _Patch(left, top, pixels, np.asarray(mask) > 0, x[None, :], y[:, None])


def _stamp(canvas: Pixels, place: Place, colors: Colors, conditions: Conditions, rng: random.Random) -> None:
    """Paint one thing, and perhaps what covers a part of it, into the image."""
    side = canvas.shape[0]
    patch = _patch(place, side, rng.uniform(-conditions.turn, conditions.turn))
    fill, ink = (jittered(color, rng) for color in colors.things[place.thing])
    inked = texture_ink(place.thing, patch.x, patch.y, rng) & patch.mask
    layers: list[tuple[NDArray[np.bool_], Color]] = [(patch.mask, fill), (inked, ink)]
    if rng.random() < conditions.occlusion:
        layers.append((_cover(patch, rng), mix(colors.ground[0], GREY, 0.5)))
    region = canvas[patch.top : patch.top + patch.pixels, patch.left : patch.left + patch.pixels]
    for where, painted in layers:
        share = _reduced(where)[..., None]
        region += share * (np.asarray(painted, np.float32) - region)


def _reduced(mask: NDArray[np.bool_]) -> Pixels:
    """(n, n) of a mask in fine pixels: the share of each pixel that it covers."""
    pixels = mask.shape[0] // FINER
    return mask.reshape(pixels, FINER, pixels, FINER).mean(axis=(1, 3), dtype=np.float32)


def _cover(patch: _Patch, rng: random.Random) -> NDArray[np.bool_]:
    """(n, n): a bar across a thing or a disc on it, so small that most of the thing is seen."""
    angle = rng.uniform(0, 2 * math.pi)
    across = patch.x * math.cos(angle) + patch.y * math.sin(angle)
    along = patch.y * math.cos(angle) - patch.x * math.sin(angle)
    if rng.random() < 0.5:
        far, reach = np.abs(across - rng.uniform(-0.25, 0.25)), rng.uniform(0.05, 0.09)
    else:  # away from the middle, where it would make rings of circles and circles of rings
        far, reach = np.hypot(across - rng.uniform(0.25, 0.4), along), rng.uniform(0.1, 0.18)
    limit = COVERED * np.count_nonzero(patch.mask)
    while np.count_nonzero(patch.mask & (far < reach)) > limit:
        reach *= 0.8
    return far < reach


def _photographed(canvas: Pixels, conditions: Conditions, rng: random.Random) -> Image.Image:
    """The image as a camera might have taken it: lit, blurred, noisy, in that order."""
    side = canvas.shape[0]
    whole, tilt = (rng.uniform(-conditions.light, conditions.light) for _ in range(2))
    canvas *= ((slope(side, rng.uniform(0, 2 * math.pi)) - 0.5) * (2 * tilt) + (1 + whole))[..., None]
    if rng.random() < 0.5:
        radius = rng.uniform(0, conditions.blur) * side / 100
        blurred = Image.fromarray(_bytes(canvas)).filter(ImageFilter.GaussianBlur(radius))
        canvas = np.asarray(blurred, np.float32)
    if rng.random() < 0.5:
        noise = np.random.default_rng(rng.getrandbits(64)).standard_normal(canvas.shape, np.float32)
        canvas = canvas + noise * np.float32(rng.uniform(0, conditions.noise))
    return Image.fromarray(_bytes(canvas))


def _bytes(canvas: Pixels) -> NDArray[np.uint8]:
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
