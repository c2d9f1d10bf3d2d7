"""Decode HEIC images at a reduced size: a thumbnail in the file, or ImageIO on macOS."""

from __future__ import annotations

import math
from typing import IO

from PIL import Image

from . import imageio


def decode_smaller(
    image: Image.Image, stream: IO[bytes], short_edge: int, *, managed: bool
) -> Image.Image | None:
    """The image with both edges of at least `short_edge` pixels, and fewer pixels than in the file.

    Args:
        image: Opened by pillow-heif, not loaded. From 1.8 on, it takes thumbnails that are a scaled copy of the
            image: of the same aspect ratio, rotation, crop and colour profile.
        stream: Its file.
        short_edge: The least edge of the result in pixels.
        managed: Whether colours become sRGB, which ImageIO does in any case.

    Returns:
        None if the image has to be decoded whole.
    """
    if image.draft("RGB", (short_edge, short_edge)) is not None:
        return image
    longest = math.ceil(short_edge * max(image.size) / min(image.size))
    if not managed or image.mode != "RGB" or longest >= max(image.size):
        return None
    stream.seek(0)
    return imageio.decode_smaller(stream.read(), image.size, longest)
