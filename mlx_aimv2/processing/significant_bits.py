"""Scale 16-bit PNG images that have fewer significant bits (the chunk sBIT).

The PNG specification requires samples that are scaled to all 16 bits. Cameras and instruments often store them
unscaled, 0 to 4095 for 12 bits, which is nearly black.
"""

from __future__ import annotations

import io
from typing import IO, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

FULL = 65535
# Pillow's raw mode that reads the high bytes -> one in the other byte order, which reads the low bytes
LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
COLORS = {0: 1, 2: 3, 4: 1, 6: 3}  # colour type -> samples per pixel without alpha


def significant_bits(stream: IO[bytes]) -> int | None:
    """The significant bits of a PNG file with 16 bits per sample; None if it does not declare fewer."""
    stream.seek(0)
    head = stream.read(33)
    if len(head) < 33 or head[24] != 16:
        return None
    while len(start := stream.read(8)) == 8 and (name := start[4:]) not in (b"IDAT", b"IEND"):
        length = int.from_bytes(start[:4], "big")
        if name == b"sBIT":
            bits = max(stream.read(min(length, COLORS.get(head[25], 0))), default=0)
            return bits if 0 < bits < 16 else None
        stream.seek(length + 4, io.SEEK_CUR)
    return None


def whole_value(values: np.ndarray[Any, Any], bits: int | None) -> int:
    """The value of white in 16-bit samples.

    Samples are unscaled if none needs more than ``bits`` bits, and some are not a result of scaling.
    """
    if bits is None:
        return FULL
    whole = (1 << bits) - 1
    if values.max(initial=0) > whole:
        return FULL
    shift = 16 - bits
    shifted = np.arange(whole + 1) << shift
    repeated = shifted.copy()
    for step in range(bits, 16, bits):
        repeated |= shifted >> step
    linear = np.rint(np.arange(whole + 1) * (FULL / whole)).astype(int)
    scaled = np.zeros(FULL + 1, dtype=bool)
    scaled[shifted] = scaled[repeated] = scaled[linear] = True
    return FULL if scaled[values].all() else whole


def unscale_colors(image: PngImageFile, again: PngImageFile, bits: int) -> None:
    """Scale the colours of a 16-bit image in place if the file stores them unscaled.

    Args:
        image: In mode RGB or RGBA, not loaded yet; Pillow keeps the high byte of every sample.
        again: The same file, opened again.
        bits: The significant bits of its sBIT.
    """
    gray = again.tile[0].args == "LA;16B"
    for tile, (decoder, extents, offset, rawmode) in enumerate(again.tile):
        again.tile[tile] = type(again.tile[tile])(decoder, extents, offset, LOW_BYTES[str(rawmode)])
    low = np.asarray(again)[..., :3].astype(np.uint16)
    if gray:  # read as four bytes: grey, its low byte, alpha, its low byte
        low = low[..., 1:2]
    high = np.asarray(image)[..., :3].astype(np.uint16)
    samples = high << 8 | low
    whole = whole_value(samples, bits)
    if whole == FULL:
        return
    colors = Image.fromarray(np.rint(np.minimum(samples, whole) * (255 / whole)).astype(np.uint8))
    if image.mode == "RGBA":
        colors.putalpha(image.getchannel("A"))
    image.paste(colors)
