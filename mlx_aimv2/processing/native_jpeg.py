"""Decode JPEG files with the decoder of mlx-data: the same pixels as Pillow's, in less time."""

from __future__ import annotations

from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .mlx_data_package import mlx_data

END = b"\xff\xd9"
# Behind a file whose last segment claims to be longer, the decoder would wait for more for ever. Instead it finds the
# marker of a second start, which is an error. A segment has at most 65,535 bytes.
PADDING = b"\xff\xd8" * 2**15 + b"\xff\xd8"


def require_decoder() -> Any:
    """The module with the decoder.

    Raises:
        InputError: mlx-data is not installed.
    """
    return mlx_data("decode='native'", "use 'exact', which gives the same pixels")


def native_pixels(stream: IO[bytes], image: Image.Image) -> NDArray[np.uint8] | None:
    """The pixels of a JPEG as they are stored, without orientation or colour profile.

    Args:
        stream: the file; its position changes.
        image: as Pillow opened it; its pixels are not loaded.

    Returns:
        (H, W, 3) uint8, three equal channels of a grey image; None for a file that only Pillow decodes: another
        format or mode, several images in a file, no end marker, or an error of the decoder.
    """
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return None
    stream.seek(0)
    data = bytearray(stream.read())
    if not data.endswith(END):
        return None
    data += PADDING
    buffer = require_decoder().buffer_from_vector([{"image": np.frombuffer(data, np.uint8)}])
    try:
        pixels = buffer.load_image("image", from_memory=True)[0]["image"]
    except RuntimeError:
        return None
    return pixels if pixels.shape == (image.height, image.width, 3) else None


def with_metadata(pixels: NDArray[np.uint8], image: Image.Image) -> Image.Image:
    """Pixels as an image in the mode of ``image``, with its EXIF data and colour profile."""
    decoded = Image.fromarray(pixels if image.mode == "RGB" else np.ascontiguousarray(pixels[:, :, 0]))
    decoded.info = dict(image.info)
    return decoded
