"""Random augmentation of training images: crops, flips, RandAugment, colour jitter."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ..errors import InputError

FILL = (122, 116, 104)  # the mean colour of CLIP's training images, where an image is moved away
FILTERS = {  # as the published preprocessing resizes; and a faster one
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
ATTEMPTS = 10  # to find a crop of random shape that fits into the image
MAX_MAGNITUDE = 30  # of RandAugment

Rng = np.random.Generator
Size = tuple[int, int]


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image, in this order; none by default. `FinetuneOptions` checks the values.

    Attributes:
        random_resized_crop: (least, most) part of the image's area that is cut out and resized (Szegedy et al.
            2015, "Going Deeper with Convolutions"); None for the largest part of the right shape in the middle.
        ratio: (least, most) width over height of such a crop, before it is resized.
        flip: chance of a flip from left to right, 0 to 1.
        randaugment: number of operations of RandAugment, one after the other (Cubuk et al. 2020, "RandAugment:
            Practical Automated Data Augmentation with a Reduced Search Space").
        magnitude: strength of these operations, 0 to 30.
        brightness: b changes brightness by a factor from 1 - b to 1 + b, but not below 0.
        contrast: likewise.
        saturation: likewise.
        hue: h turns hues by up to h of a full turn either way, 0 to 0.5.
        resize: the filter that resizes the part of the image: "bicubic", as the published preprocessing, or
            "bilinear".
    """

    random_resized_crop: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    randaugment: int = 0
    magnitude: float = 9.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    resize: str = "bicubic"

    def apply(self, image: Image.Image, rng: Rng, size: Size) -> Image.Image:
        """A changed copy of an image.

        Args:
            image: upright, in mode RGB.
            rng: the source of all randomness.
            size: (height, width) of the result in pixels.

        Raises:
            InputError: the image has another mode.
        """
        if image.mode != "RGB":
            raise InputError(
                f"only images in mode RGB are augmented, not {image.mode}: use decode_image first"
            )
        height, width = size
        box = self._crop_box(image.size, rng, width / height)
        image = image.resize((width, height), FILTERS[self.resize], box)
        if rng.random() < self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for operation in rng.choice(len(OPERATIONS), self.randaugment):
            sign = 1 if rng.random() < 0.5 else -1
            image = OPERATIONS[operation](image, sign * self.magnitude / MAX_MAGNITUDE)
        return self._jittered(image, rng)

    def short_edge(self, size: Size) -> int:
        """The short edge for `decode_image`, which keeps at least twice as much, so that no crop is enlarged."""
        least = 1.0 if self.random_resized_crop is None else self.random_resized_crop[0]
        return max(*size, math.ceil(max(size) / math.sqrt(least) / 2))

    def _crop_box(self, size: Size, rng: Rng, shape: float) -> tuple[float, float, float, float]:
        """The crop of an image of (width, height): (left, top, right, bottom)."""
        width, height = size
        if self.random_resized_crop is None:
            return _middle(size, shape, shape)
        for _ in range(ATTEMPTS):
            area = width * height * rng.uniform(*self.random_resized_crop)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
                return left, top, left + w, top + h
        return _middle(size, *self.ratio)

    def _jittered(self, image: Image.Image, rng: Rng) -> Image.Image:
        """Brightness, contrast, saturation and hue, in random order."""
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        if not any(strengths):
            return image
        for kind in rng.permutation(len(strengths)):
            amount = rng.uniform(-strengths[kind], strengths[kind])
            image = JITTERS[kind](image, amount) if amount else image
        return image


def _middle(size: Size, least: float, most: float) -> tuple[float, float, float, float]:
    """The largest part in the middle of (width, height) whose width over height lies in the bounds."""
    width, height = size
    ratio = min(max(width / height, least), most)
    w, h = min(width, height * ratio), min(height, width / ratio)
    left, top = (width - w) / 2, (height - h) / 2
    return left, top, min(left + w, width), min(top + h, height)


def _enhanced(enhancer: Callable[[Image.Image], Any]) -> Callable[[Image.Image, float], Image.Image]:
    """A change by a factor of ``1 + amount``."""
    return lambda image, amount: enhancer(image).enhance(max(0.0, 1 + amount))


def _turn_hue(image: Image.Image, turns: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point([(level + round(turns * 256)) % 256 for level in range(256)])
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _moved(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Each pixel (x, y) taken from ``matrix`` applied to (x, y, 1)."""
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL
    )


def _shear_x(image: Image.Image, strength: float) -> Image.Image:
    slope = 0.3 * strength
    return _moved(image, (1, slope, -slope * image.height / 2, 0, 1, 0))


def _shear_y(image: Image.Image, strength: float) -> Image.Image:
    slope = 0.3 * strength
    return _moved(image, (1, 0, 0, slope, 1, -slope * image.width / 2))


def _translate_x(image: Image.Image, strength: float) -> Image.Image:
    return _moved(image, (1, 0, 0.45 * strength * image.width, 0, 1, 0))


def _translate_y(image: Image.Image, strength: float) -> Image.Image:
    return _moved(image, (1, 0, 0, 0, 1, 0.45 * strength * image.height))


def _rotate(image: Image.Image, strength: float) -> Image.Image:
    return image.rotate(30 * strength, Image.Resampling.BILINEAR, fillcolor=FILL)


def _posterize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(4 * abs(strength)))


def _solarize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.solarize(image, round(256 * (1 - abs(strength))))


JITTERS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    _enhanced(ImageEnhance.Brightness),
    _enhanced(ImageEnhance.Contrast),
    _enhanced(ImageEnhance.Color),
    _turn_hue,
)


def _strong(enhancer: Callable[[Image.Image], Any]) -> Callable[[Image.Image, float], Image.Image]:
    """The enhancement of RandAugment: its largest strength changes by a factor of 0.1 or 1.9."""
    change = _enhanced(enhancer)
    return lambda image, strength: change(image, 0.9 * strength)


# The fourteen operations of the paper, in its order. Each takes a strength from -1 to 1, whose sign is a direction
# where there is one; ranges are those of the paper's own (section 4 and AutoAugment, appendix A).
OPERATIONS: tuple[Callable[[Image.Image, float], Image.Image], ...] = (
    lambda image, _: image,
    lambda image, _: ImageOps.autocontrast(image),
    lambda image, _: ImageOps.equalize(image),
    _rotate,
    _solarize,
    _strong(ImageEnhance.Color),
    _posterize,
    _strong(ImageEnhance.Contrast),
    _strong(ImageEnhance.Brightness),
    _strong(ImageEnhance.Sharpness),
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
)
