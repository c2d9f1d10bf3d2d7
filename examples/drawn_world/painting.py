"""Paint a scene as an image, with rotation, light, blur, noise and occlusion that captions do not mention."""

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

FINER = 3  # things are drawn larger by this factor, then reduced
LARGEST = 1024  # side of an image, in pixels
SMALLEST = 28
COVERED = 0.25  # largest share of a thing that is covered


@dataclass(frozen=True)
class Conditions:
    """The difficulty of images; each value is a maximum, except occlusion.

    Attributes:
        turn: rotation of things in degrees, either way.
        light: share by which a side of the image, and the whole image, is lighter or darker.
        blur: radius in hundredths of the side; half of the images are sharp.
        noise: standard deviation in steps of 255; half of the images have none.
        occlusion: the share of things that are partly covered, up to a quarter of the thing.

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
    """Paint a scene; the same seed gives the same image.

    Args:
        scene: the scene.
        side: width and height of the image in pixels, 28 to 1024.
        seed: of everything that the scene does not define.
        conditions: None for the default difficulty.
        colors: None for the colours of the scene.

    Raises:
        InputError: the side is out of range.
    """
    image, _ = _painted(scene, side, seed, conditions, colors)
    return image


def close_up(scene: Scene, side: int, seed: int | str, conditions: Conditions | None = None) -> Image.Image:
    """Paint a scene and crop a square of half the side that contains one whole thing.

    The largest things may lose part of a pixel at an edge.

    Args:
        scene: the scene.
        side: width and height of the image before the crop in pixels, 28 to 1024.
        seed: of everything that the scene does not define.
        conditions: None for the default difficulty.

    Raises:
        InputError: the side is out of range.
    """
    image, painted_places = _painted(scene, side, seed, conditions, None)
    rng = random.Random(f"close up/{seed}")
    place = rng.choice(painted_places)
    left, top = (_crop_start(middle, place.diameter, side, rng) for middle in (place.x, place.y))
    return image.crop((left, top, left + side // 2, top + side // 2))


def _crop_start(middle: float, diameter: float, side: int, rng: random.Random) -> int:
    """A random start, in pixels, of a crop of half the side that contains a whole thing."""
    first = max(0, math.ceil((middle + diameter / 2) * side) - side // 2)
    last = min(side - side // 2, math.floor((middle - diameter / 2) * side))
    return rng.randint(first, max(first, last))  # the largest things leave no choice


def _painted(
    scene: Scene,
    side: int,
    seed: int | str,
    conditions: Conditions | None,
    colors: Colors | None,
) -> tuple[Image.Image, list[Place]]:
    """The image and the places of its things."""
    check_range("the side", side, SMALLEST, LARGEST)
    conditions = conditions or Conditions()
    rng = random.Random(f"paint/{seed}")
    colors = colors or own_colors(scene)
    canvas = ground_pixels(colors.ground, scene.ground.finish, side, rng)  # (H, W, 3)
    scene_places = places(scene, rng)
    for place in scene_places:
        _paint_thing(canvas, place, colors, conditions, rng)
    return _photographed(canvas, conditions, rng), scene_places


@dataclass(frozen=True)
class _Patch:
    """The square around a thing, in pixels that are finer by ``FINER``.

    Attributes:
        left: left edge in pixels of the image.
        top: top edge in pixels of the image.
        pixels: side in pixels of the image.
        mask: (n, n) bool, true inside the thing.
        x: (1, n), distance from the middle of the thing to the right, in its diameters.
        y: (n, 1), distance downwards.
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


def _paint_thing(
    canvas: Pixels, place: Place, colors: Colors, conditions: Conditions, rng: random.Random
) -> None:
    """Paint a thing, and perhaps a cover, into the image."""
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
    """The share of each pixel, (n, n), that a mask of fine pixels covers."""
    pixels = mask.shape[0] // FINER
    return mask.reshape(pixels, FINER, pixels, FINER).mean(axis=(1, 3), dtype=np.float32)


def _cover(patch: _Patch, rng: random.Random) -> NDArray[np.bool_]:
    """(n, n) of a bar or disc that covers at most ``COVERED`` of a thing."""
    angle = rng.uniform(0, 2 * math.pi)
    across = patch.x * math.cos(angle) + patch.y * math.sin(angle)
    along = patch.y * math.cos(angle) - patch.x * math.sin(angle)
    if rng.random() < 0.5:
        far, reach = np.abs(across - rng.uniform(-0.25, 0.25)), rng.uniform(0.05, 0.09)
    else:  # away from the middle, where a disc turns circles into rings and rings into circles
        far, reach = np.hypot(across - rng.uniform(0.25, 0.4), along), rng.uniform(0.1, 0.18)
    limit = COVERED * np.count_nonzero(patch.mask)
    while np.count_nonzero(patch.mask & (far < reach)) > limit:
        reach *= 0.8
    return far < reach


def _photographed(canvas: Pixels, conditions: Conditions, rng: random.Random) -> Image.Image:
    """Add light, blur and noise, in that order."""
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
