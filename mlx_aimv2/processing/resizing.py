"""Resize and crop images, and compute their sizes: as transformers does, or the nearest grid of whole patches."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .decode import Decoded
from .image_config import ImageProcessorConfig

MAX_RESIZED_PIXELS = 2**25  # 128 MiB in Pillow; a larger image is resized only where the crop keeps it


def resized_size(height: int, width: int, config: ImageProcessorConfig) -> tuple[int, int]:
    """(height, width) after resizing; the longer edge is rounded as in transformers, with `longest` as in timm."""
    if not config.do_resize:
        return height, width
    if not isinstance(config.size, int):
        return config.size
    short, long = min(height, width), max(height, width)
    if config.longest:
        ratio = long / config.size
        return max(round(height / ratio), 1), max(round(width / ratio), 1)
    scaled = int(config.size * long / short)
    return (scaled, config.size) if width <= height else (config.size, scaled)


def nearest_grid(rows: float, columns: float, least: int, most: int) -> tuple[int, int]:
    """The patch grid (h, w) nearest to the aspect ratio of an image, with `least` to `most` patches.

    Args:
        rows: Height of the image in patches, not rounded.
        columns: Width, likewise.
        least: Lower bound for h * w; ignored if no grid near the aspect ratio fits both bounds.
        most: Upper bound for h * w, never exceeded.

    Returns:
        (h, w), each at least 1. The area stays the same if it lies within the bounds.
    """
    area = min(max(rows * columns, least), most)
    h, w = math.sqrt(area * (rows / columns)), math.sqrt(area * (columns / rows))
    grids: set[tuple[int, int]] = set()
    for i, j in product((math.floor(h), math.ceil(h)), (math.floor(w), math.ceil(w))):
        i, j = max(i, 1), max(j, 1)
        # rounding up may exceed the bounds, mostly if the short side became 1: shorten the long side
        grids.add((min(i, most // j), j) if i > j else (i, min(j, most // i)))
    fitting = {(i, j) for i, j in grids if i * j >= least} or grids
    return min(fitting, key=lambda grid: (abs(math.log(grid[0] / h * w / grid[1])), -grid[0] * grid[1]))


def resize(decoded: Decoded, config: ImageProcessorConfig) -> Image.Image:
    """Resize an image as in the config; a very large result, or a reduced image, only where the crop keeps it."""
    height, width = resized_size(decoded.size[1], decoded.size[0], config)
    resample = Image.Resampling(config.resample)
    image = decoded.image
    is_reduced = image.size != decoded.size
    if height * width > MAX_RESIZED_PIXELS or (is_reduced and config.do_center_crop):
        return resize_middle(decoded, (height, width), config, resample)
    return image.resize((width, height), resample, decoded.box)


def resize_middle(
    image: Decoded, resized: tuple[int, int], config: ImageProcessorConfig, resample: Image.Resampling
) -> Image.Image:
    """The middle of the resized image, at most `crop_size` large, without computing the rest.

    A box keeps the filter's reach beyond its edges, so this equals resizing and cropping except for the rounding
    between Pillow's two passes. All sizes are (height, width).
    """
    left, top, right, bottom = image.box
    height, width = (min(edge, keep) for edge, keep in zip(resized, config.crop_size, strict=True))
    y, x = (bottom - top) / resized[0], (right - left) / resized[1]
    top, left = (
        top + middle_start(resized[0], height, config) * y,
        left + middle_start(resized[1], width, config) * x,
    )
    box = (left, top, min(left + width * x, right), min(top + height * y, bottom))
    return image.image.resize((width, height), resample, box)


def middle_start(length: int, kept: int, config: ImageProcessorConfig) -> int:
    """The first pixel of the middle of an edge; negative if the edge is shorter than ``kept``."""
    if config.crop_rounding == "down":
        return (length - kept) // 2
    return round((length - kept) / 2) if length > kept else -((kept - length) // 2)


def center_crop(pixels: NDArray[np.uint8], config: ImageProcessorConfig) -> NDArray[np.uint8]:
    """The middle of (H, W, 3), with borders if the image is smaller."""
    (height, width), (crop_height, crop_width) = pixels.shape[:2], config.crop_size
    top, left = middle_start(height, crop_height, config), middle_start(width, crop_width, config)
    inside = pixels[max(top, 0) : top + crop_height, max(left, 0) : left + crop_width]
    if inside.shape[:2] == config.crop_size:
        return inside
    canvas = np.full((crop_height, crop_width, 3), config.crop_fill, dtype=np.uint8)
    top, left = max(-top, 0), max(-left, 0)
    canvas[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return canvas
