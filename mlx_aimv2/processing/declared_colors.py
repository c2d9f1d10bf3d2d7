"""Colour profiles of images that declare their colours without an ICC profile: by codes (HEIC), or in EXIF (JPEG)."""

from __future__ import annotations

import functools
import struct
from typing import TypeAlias

import numpy as np
from PIL import ExifTags, Image

Chromaticities: TypeAlias = tuple[tuple[float, float], ...]

WHITE = (0.3127, 0.3290)  # D65, in x and y
D50 = (0.9642, 1.0, 0.8249)  # in XYZ, of ICC profiles
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
BT709: Chromaticities = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
ADOBE_RGB: Chromaticities = ((0.640, 0.330), (0.210, 0.710), (0.150, 0.060))
PRIMARIES: dict[int, Chromaticities] = {  # codes of ITU-T H.273 -> red, green and blue in x and y
    1: BT709,
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)),  # BT.601 with 625 lines
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),  # BT.601 with 525 lines
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
# codes of transfer characteristics -> gamma, or None for the curve of sRGB: screens show BT.709 with it too
TRANSFERS: dict[int, float | None] = {1: None, 4: 2.2, 5: 2.8, 6: None, 8: 1.0, 13: None, 14: None, 15: None}
ADOBE_GAMMA = 563 / 256


def declared_profile(image: Image.Image) -> bytes:
    """The ICC profile of the colours that an image without one declares.

    Returns:
        Nothing for sRGB, for colours that are not declared, and for HDR (PQ and HLG).
    """
    codes = image.info.get("nclx_profile") or {}
    primaries = PRIMARIES.get(codes.get("color_primaries", 0))
    transfer = codes.get("transfer_characteristics", 0)
    if primaries is not None and transfer in TRANSFERS:
        gamma = TRANSFERS[transfer]
        return b"" if primaries == BT709 and gamma is None else rgb_profile(primaries, gamma)
    return rgb_profile(ADOBE_RGB, ADOBE_GAMMA) if _is_adobe_rgb(image) else b""


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether EXIF declares Adobe RGB, as cameras do ("Design rule for Camera File system", version 2)."""
    if b"R03" not in (image.info.get("exif") or b""):
        return False
    try:
        exif = image.getexif()
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        index = exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex)
    except Exception:  # noqa: BLE001 - damaged EXIF raises anything
        return False
    return space == 0xFFFF and str(index).strip("\0 ") == "R03"


@functools.cache
def rgb_profile(primaries: Chromaticities, gamma: float | None) -> bytes:
    """An ICC profile of RGB with a white of D65; gamma None stands for the curve of sRGB."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white = np.array([WHITE[0] / WHITE[1], 1, (1 - sum(WHITE)) / WHITE[1]])
    scale = (BRADFORD @ D50) / (BRADFORD @ white)
    matrix = np.linalg.inv(BRADFORD) @ np.diag(scale) @ BRADFORD @ (xyz * np.linalg.solve(xyz, white))
    if gamma is None:
        curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + _fixed(*SRGB_CURVE)
    else:
        curve = b"para" + bytes(4) + struct.pack(">HH", 0, 0) + _fixed(gamma)
    tags = {b"wtpt": b"XYZ " + bytes(4) + _fixed(*D50)}
    for color, column in zip(b"rgb", matrix.T, strict=True):
        tags |= {
            bytes([color]) + b"XYZ": b"XYZ " + bytes(4) + _fixed(*column),
            bytes([color]) + b"TRC": curve,
        }
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    head = struct.pack(">I4sI", start + len(body), b"", 0x04300000) + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    head = (head + bytes(28) + _fixed(*D50)).ljust(128, b"\0")
    return head + struct.pack(">I", len(tags)) + table + body


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))
