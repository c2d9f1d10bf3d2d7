"""Small images for the tests, in memory and encoded."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

from mlx_aimv2.processing.decode import DecodeOptions, decode_image


def noise(height: int = 7, width: int = 11, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(height: int = 48, width: int = 64) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 3, y * 4, 255 - x - y], -1).astype(np.uint8))


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def png(
    width: int, height: int, bits: int = 8, kind: int = 2, rows: bytes = b"", extra: bytes = b""
) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + (chunk(b"tRNS", extra) if extra else b"")
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pixels(source: Any, options: DecodeOptions | None = None) -> np.ndarray:
    image = decode_image(source, options)
    assert image.mode == "RGB"
    return np.asarray(image)
