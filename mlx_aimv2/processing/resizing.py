"""Cutting the middle out of an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .image_config import ImageProcessorConfig


def middle_start(length: int, kept: int, config: ImageProcessorConfig) -> int:
    """Where the middle of an edge begins; below 0 where the edge is shorter than what is to be kept of it."""
    if config.crop_rounding == "down":
        return (length - kept) // 2
    return round((length - kept) / 2) if length > kept else -((kept - length) // 2)


def center_crop(pixels: NDArray[np.uint8], config: ImageProcessorConfig) -> NDArray[np.uint8]:
    """The middle of (H, W, 3), with borders where the image is smaller."""
    size = config.crop_size
    (height, width), (crop_height, crop_width) = pixels.shape[:2], size
    top, left = middle_start(height, crop_height, config), middle_start(width, crop_width, config)
    inside = pixels[max(top, 0) : top + crop_height, max(left, 0) : left + crop_width]
    if inside.shape[:2] == size:
        return inside
    canvas = np.full((crop_height, crop_width, 3), config.crop_fill, dtype=np.uint8)
    top, left = max(-top, 0), max(-left, 0)
    canvas[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return canvas
