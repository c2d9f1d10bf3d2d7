"""PNG images of 16 bits that say that fewer are significant."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from helpers.encoded_images import pixels

KINDS = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}


def png(samples: np.ndarray, kind: str, bits: int | None) -> bytes:
    """A PNG file of samples (H, W, C) of 16 bits."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", width, height, 16, KINDS[kind], 0, 0, 0)
    sbit = chunk(b"sBIT", bytes([bits] * len(kind))) if bits else b""
    text = chunk(b"tEXt", b"note\0sBIT")
    parts = chunk(b"IHDR", head), text, sbit, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def raw(kind: str, bits: int, seed: int = 0) -> np.ndarray:
    """Samples as an instrument stores them, opaque."""
    found = np.random.default_rng(seed).integers(0, 1 << bits, (9, 13, len(kind)))
    found[0, 0] = (1 << bits) - 1
    if kind.endswith("A"):
        found[..., -1] = 65535
    return found


def levels(samples: np.ndarray, kind: str, whole: int) -> np.ndarray:
    colors = samples[..., : len(kind.rstrip("A"))]
    return np.broadcast_to(np.rint(colors * (255 / whole)), (*samples.shape[:2], 3)).astype(int)


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_that_were_not_scaled_have_the_range_of_their_bits(kind: str, bits: int) -> None:
    samples = raw(kind, bits)
    shown = pixels(png(samples, kind, bits))
    assert np.abs(shown - levels(samples, kind, (1 << bits) - 1)).max() == 0


@pytest.mark.parametrize("how", ["shifted", "repeated", "linear"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dark", [False, True])
def test_samples_that_were_scaled_stay(kind: str, how: str, dark: bool) -> None:
    samples = raw(kind, 12)
    colors = len(kind.rstrip("A"))
    few = samples[..., :colors] // (64 if dark else 1)
    made = {
        "shifted": few << 4,
        "repeated": few << 4 | few >> 8,
        "linear": np.rint(few * (65535 / 4095)).astype(int),
    }
    samples[..., :colors] = made[how]
    assert np.array_equal(pixels(png(samples, kind, 12)), pixels(png(samples, kind, None)))


@pytest.mark.parametrize("kind", KINDS)
def test_samples_beyond_their_bits_stay(kind: str) -> None:
    samples = raw(kind, 12)
    samples[3, 3, 0] = 5000
    assert np.array_equal(pixels(png(samples, kind, 12)), pixels(png(samples, kind, None)))


@pytest.mark.parametrize("bits", [None, 16, 200])
def test_all_bits_are_the_usual_range(bits: int | None) -> None:
    samples = raw("L", 16)
    assert np.array_equal(pixels(png(samples, "L", bits)), levels(samples, "L", 65535))
