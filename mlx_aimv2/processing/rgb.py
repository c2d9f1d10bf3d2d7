"""Any Pillow mode, or an array, as 8-bit RGB.

Pillow's own `convert("RGB")` drops transparency and clips 16-bit grey to white; here transparency is laid
over a background, and deep pixels are scaled by their range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import ImageError, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Color = tuple[int, int, int]

DEEP_MODES = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
ARRAY_RULE = (
    "arrays are (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 in 0..255 or float16/32/64 in 0.0..1.0"
)


def to_rgb(picture: Image.Image, background: Color | None) -> Image.Image:
    """The picture in mode RGB, 8 bits a channel.

    16-bit values are divided by 65535; so are 32-bit integers within 0..65535; floats within 0..1 are taken
    as they are. Other integers and floats are stretched from their minimum to their maximum. Every other mode
    goes through Pillow's conversion.

    Args:
        picture: A loaded picture in any mode.
        background: Colour under transparent pixels, 0..255 a channel; None drops the transparency.

    Returns:
        The picture itself where it is RGB without transparency already, otherwise a new one of the same size.

    Raises:
        ImageError: Float pixels hold NaN or infinity.
    """
    if picture.mode in DEEP_MODES:
        picture = _deep_to_gray(picture)
    if not picture.has_transparency_data:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    if picture.mode == "La":  # Pillow has no direct way from premultiplied grey to RGBA
        picture = picture.convert("LA")
    rgba = picture if picture.mode == "RGBA" else picture.convert("RGBA")
    if background is None:
        return rgba.convert("RGB")
    canvas = Image.new("RGBA", rgba.size, (*background, 255))
    return Image.alpha_composite(canvas, rgba).convert("RGB")


def array_to_rgb(array: NDArray[Any], background: Color | None) -> Image.Image:
    """An array of pixels as a picture in mode RGB.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); uint8 in 0..255, or float16/32/64 in 0..1.
        background: Colour under transparent pixels of a 4-channel array; None drops the transparency.

    Raises:
        InputError: Any other shape, dtype or range. Values are never rescaled by guessing.
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
        hint = "; pass the pictures of a batch one by one"
    raise InputError(f"got an array of shape {shape}: {ARRAY_RULE}{hint}")


def _deep_to_gray(picture: Image.Image) -> Image.Image:
    """A picture of 16-bit, 32-bit or float grey as L, or as LA where one value is marked transparent."""
    values = np.asarray(picture)
    gray = Image.fromarray(_scaled_by_range(values, picture.mode))
    key = picture.info.get("transparency")
    if isinstance(key, int):
        gray.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return gray


def _scaled_by_range(values: NDArray[Any], mode: str) -> NDArray[np.uint8]:
    """Grey values (H, W) of a deep mode as (H, W) uint8."""
    if mode.startswith("I;16"):
        return _sixteen_bits(values)
    if not np.isfinite(values).all():
        raise ImageError("float pixels hold NaN or infinity")
    low, high = float(values.min()), float(values.max())
    if mode == "I" and low >= 0 and high <= 65535:
        return _sixteen_bits(values)
    if mode == "F" and low >= 0.0 and high <= 1.0:
        low, high = 0.0, 1.0
    span = (high - low) or 1.0
    return np.rint((values.astype(np.float64) - low) / span * 255).astype(np.uint8)


def _sixteen_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    # 65535 = 255 * 257, so v / 65535 * 255 is v / 257, rounded here; 257 is odd, so there are no ties
    return ((values.astype(np.int32) + 128) // 257).astype(np.uint8)
