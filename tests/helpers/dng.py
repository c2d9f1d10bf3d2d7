"""DNG files made by hand: an uncompressed colour filter array, with or without a preview."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

SRGB_FROM_XYZ = (3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570)
BYTE, ASCII, SHORT, LONG, RATIONAL, SRATIONAL = 1, 2, 3, 4, 5, 10
FORMATS = {SHORT: "H", LONG: "L"}


def mosaic(rgb: np.ndarray) -> np.ndarray:
    """Linear values (H, W, 3) as a sensor with the pattern RGGB stores them: (H, W)."""
    cfa = rgb[..., 1].copy()
    cfa[::2, ::2], cfa[1::2, 1::2] = rgb[::2, ::2, 0], rgb[1::2, 1::2, 2]
    return cfa


def dng(
    linear: np.ndarray,
    preview: bytes = b"",
    preview_size: tuple[int, int] = (0, 0),
    orientation: int = 1,
    size: tuple[int, int] | None = None,
    neutral: tuple[float, float, float] = (1.0, 1.0, 1.0),
    is_gray: bool = False,
) -> bytes:
    """A DNG of a camera whose colours are those of sRGB.

    Args:
        linear: the sensor's image, (H, W, 3), in 0..1.
        preview: a JPEG file for the first page; the sensor's data is the first page without one.
        preview_size: (width, height) in pixels.
        orientation: as in EXIF.
        size: (width, height) that the tags tell, if not the true ones.
        neutral: what the sensor sees of white.
        is_gray: a sensor without colours, which sees the green of `linear`.
    """
    cfa = np.rint((linear[..., 1] if is_gray else mosaic(linear)) * 65535).astype("<u2").tobytes()
    height, width = linear.shape[:2]
    body = preview + bytes(len(preview) % 2) + cfa
    start = 8 + len(preview) + len(preview) % 2
    width, height = size or (width, height)
    common: dict[int, Any] = {
        271: (ASCII, b"Test\0"),
        272: (ASCII, b"Test camera\0"),
        274: (SHORT, (orientation,)),
        50706: (BYTE, bytes((1, 4, 0, 0))),
        50708: (ASCII, b"Test camera\0"),
        50721: (SRATIONAL, SRGB_FROM_XYZ),
        50728: (RATIONAL, neutral),
        50778: (SHORT, (21,)),
    }
    sensor: dict[int, Any] = {
        254: (LONG, (0,)),
        256: (LONG, (width,)),
        257: (LONG, (height,)),
        258: (SHORT, (16,)),
        259: (SHORT, (1,)),
        262: (SHORT, (32803,)),
        273: (LONG, (start,)),
        277: (SHORT, (1,)),
        278: (LONG, (height,)),
        279: (LONG, (len(cfa),)),
        33421: (SHORT, (2, 2)),
        33422: (BYTE, bytes((0, 1, 1, 2))),
        50717: (SHORT, (65535,)),
    }
    if is_gray:
        sensor[262] = (SHORT, (34892,))
        for tag in (33421, 33422):
            del sensor[tag]
        for tag in (50721, 50728, 50778):
            del common[tag]
    head = 8 + len(body)
    if not preview:
        return struct.pack("<2sHL", b"II", 42, head) + body + _directory(common | sensor, head)
    page: dict[int, Any] = {
        254: (LONG, (1,)),
        256: (LONG, (preview_size[0],)),
        257: (LONG, (preview_size[1],)),
        258: (SHORT, (8, 8, 8)),
        259: (SHORT, (7,)),
        262: (SHORT, (6,)),
        273: (LONG, (8,)),
        277: (SHORT, (3,)),
        278: (LONG, (preview_size[1],)),
        279: (LONG, (len(preview),)),
        330: (LONG, (head,)),
    }
    sub = _directory(sensor, head)
    first = _directory(page | common, head + len(sub))
    return struct.pack("<2sHL", b"II", 42, head + len(sub)) + body + sub + first


def _directory(entries: dict[int, Any], at: int) -> bytes:
    table, after = struct.pack("<H", len(entries)), b""
    start = at + 2 + 12 * len(entries) + 4
    for tag, (kind, values) in sorted(entries.items()):
        if isinstance(values, bytes):
            raw, count = values, len(values)
        elif kind in FORMATS:
            raw, count = struct.pack(f"<{len(values)}{FORMATS[kind]}", *values), len(values)
        else:
            raw, count = b"".join(struct.pack("<ii", round(x * 10000), 10000) for x in values), len(values)
        if len(raw) > 4:
            place = struct.pack("<L", start + len(after))
            after += raw + bytes(len(raw) % 2)
            raw = place
        table += struct.pack("<HHL", tag, kind, count) + raw.ljust(4, b"\0")
    return table + bytes(4) + after
