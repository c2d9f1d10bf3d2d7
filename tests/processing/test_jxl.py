"""JPEG XL: the size in the header, and the plugin of Pillow."""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
from helpers.encoded_images import smooth
from PIL import Image

from mlx_aimv2.errors import BrokenImageError, ImageTooLargeError, MissingExtraError
from mlx_aimv2.processing.decode import DecodeOptions, decode_image
from mlx_aimv2.processing.jxl import CONTAINER, jxl_size


def header(*fields: tuple[int, int]) -> bytes:
    """A codestream that begins with (value, bits) fields."""
    value = at = 0
    for field, bits in fields:
        value |= field << at
        at += bits
    return b"\xff\x0a" + value.to_bytes(20, "little")


def jxl(image: Image.Image, **options: object) -> bytes:
    pytest.importorskip("pillow_jxl")
    stream = io.BytesIO()
    image.save(stream, "JXL", **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        (((1, 1), (7, 5), (0, 3), (3, 5)), (32, 64)),
        (((1, 1), (7, 5), (1, 3)), (64, 64)),
        (((0, 1), (0, 2), (299, 9), (3, 3)), (400, 300)),
        (((0, 1), (1, 2), (2999, 13), (0, 3), (1, 2), (3999, 13)), (4000, 3000)),
        (((0, 1), (3, 2), (2**30 - 1, 30), (7, 3)), (2**31, 2**30)),
    ],
)
def test_sizes_are_read_from_the_header(fields: tuple[tuple[int, int], ...], size: tuple[int, int]) -> None:
    data = header(*fields)
    assert jxl_size(io.BytesIO(data)) == size
    for name, extra in ((b"jxlc", b""), (b"jxlp", bytes(4))):
        boxes = struct.pack(">L4s4sLL4s", 20, b"ftyp", b"jxl ", 0, 0, b"")[:20]
        boxed = CONTAINER + boxes + struct.pack(">L4s", 8 + len(extra + data), name) + extra + data
        assert jxl_size(io.BytesIO(boxed)) == size


@pytest.mark.parametrize("data", [b"\xff\x0a", b"\xff\x0a" + bytes(5), CONTAINER, CONTAINER + bytes(40)])
def test_a_file_without_a_size_is_named(data: bytes) -> None:
    with pytest.raises(BrokenImageError, match="a JPEG XL file without a size"):
        decode_image(data)


def test_too_many_pixels_are_refused_before_the_plugin_sees_them() -> None:
    with pytest.raises(ImageTooLargeError, match=r"2147483648x1073741824 is"):
        decode_image(header((0, 1), (3, 2), (2**30 - 1, 30), (7, 3)))


@pytest.mark.parametrize("size", [(64, 48), (300, 200), (257, 511)])
def test_images_are_decoded(size: tuple[int, int]) -> None:
    image = smooth(size[1], size[0])
    data = jxl(image, lossless=True)
    assert jxl_size(io.BytesIO(data)) == size
    assert np.array_equal(np.asarray(decode_image(data)), np.asarray(image))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_images_are_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = smooth(48, 64)
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    expected = decode_image(stream.getvalue())
    result = decode_image(jxl(image, lossless=True, exif=exif.tobytes()))
    assert result.size == expected.size
    assert np.array_equal(np.asarray(result), np.asarray(expected))


def test_a_damaged_file_is_named() -> None:
    data = jxl(smooth())
    with pytest.raises(BrokenImageError, match=r"^image of \d+ bytes: cut off or damaged"):
        decode_image(data[: len(data) // 2])


def test_without_the_plugin_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pillow_jxl", "pillow_jxl.JpegXLImagePlugin"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingExtraError,
        match=r"^Reading JPEG XL images needs the package pillow-jxl-plugin: pip install 'mlx-aimv2\[jxl\]'$",
    ):
        decode_image(header((1, 1), (7, 5), (1, 3)), DecodeOptions())
