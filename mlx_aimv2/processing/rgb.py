"""Convert any Pillow mode or array to 8-bit RGB: composite alpha over a background, scale deep pixels.

Pillow's own `convert("RGB")` drops transparency and clips 16-bit grey to white.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import InputError
from .scaling import scaled, valid
from .significant_bits import whole_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

Color = tuple[int, int, int]

DEEP_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
ARRAY_RULE = (
    "arrays are (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 in 0..255 or float16/32/64 in 0.0..1.0"
)


def to_rgb(image: Image.Image, background: Color | None) -> Image.Image:
    """Convert an image to mode RGB, 8 bits per channel.

    Deep modes follow the rule of `scaling`: 16-bit grey is divided by 65535; 32-bit integers and floats are stretched
    from their smallest to their greatest value, but floats within 0..1 are not. Pillow converts all other modes.

    Args:
        image: A loaded image in any mode.
        background: Colour under transparent pixels, 0..255 per channel; None drops the transparency.

    Returns:
        The image itself if it is RGB without transparency, otherwise a new one of the same size.

    Raises:
        ImageError: No float pixel holds a number.
    """
    if image.mode in DEEP_MODES:
        image = deep_to_gray(image)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode == "La":  # Pillow cannot convert premultiplied grey to RGBA directly
        image = image.convert("LA")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    if background is None:
        return rgba.convert("RGB")
    canvas = Image.new("RGBA", rgba.size, (*background, 255))
    return Image.alpha_composite(canvas, rgba).convert("RGB")


def array_to_rgb(array: NDArray[Any], background: Color | None) -> Image.Image:
    """Convert an array of pixels to an image in mode RGB.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); uint8 in 0..255, or float16/32/64 in 0..1.
        background: Colour under transparent pixels of a 4-channel array; None drops the transparency.

    Raises:
        InputError: The shape, dtype or range is not one of these; values are never rescaled by a guess.
    """
    _check_array_shape(array)
    pixels = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if pixels.dtype.type in (np.float16, np.float32, np.float64):
        with np.errstate(invalid="ignore"):
            low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0.0 and high <= 1.0):  # NaN makes both comparisons false
            raise InputError(f"got {array.dtype} pixels from {low:g} to {high:g}: {ARRAY_RULE}")
        pixels = np.rint(pixels.astype(np.float32) * 255).astype(np.uint8)
    elif pixels.dtype.type is not np.uint8:
        raise InputError(f"got an array of dtype {array.dtype}: {ARRAY_RULE}")
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels)), background)


def _check_array_shape(array: NDArray[Any]) -> None:
    shape = tuple(array.shape)
    if array.ndim == 2 or (array.ndim == 3 and shape[-1] in (1, 3, 4)):
        if array.size == 0:
            raise InputError(f"got an array of shape {shape}, which has no pixels: {ARRAY_RULE}")
        return
    hint = ""
    if array.ndim == 3 and shape[0] in (1, 3, 4):
        hint = "; channels seem to come first, use array.transpose(1, 2, 0)"
    elif array.ndim == 4:
        hint = "; pass the images of a batch one by one"
    raise InputError(f"got an array of shape {shape}: {ARRAY_RULE}{hint}")


def deep_to_gray(image: Image.Image) -> Image.Image:
    """Convert 16-bit, 32-bit or float grey to mode L, or to LA if pixels are transparent, NaN or no data."""
    values = np.asarray(image)
    # Pillow reads 16-bit PGM as 32-bit integers, scaled to 16 bits
    is_light = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG"))
    most = whole_value(values, image.info.get("significant_bits")) if is_light else None
    gray = Image.fromarray(scaled(values, most))
    key = image.info.get("transparency")
    opaque = values != key if isinstance(key, int) else valid(values[..., None])
    if not opaque.all():
        gray.putalpha(Image.fromarray(np.where(opaque, 255, 0).astype(np.uint8)))
    return gray
