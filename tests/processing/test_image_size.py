"""The size of an image from its header: the same as after decoding."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest
from helpers.encoded_images import encoded, noise, smooth
from PIL import Image

from mlx_aimv2.errors import BrokenImageError, ImageError, ImageTooLargeError
from mlx_aimv2.processing import image_size
from mlx_aimv2.processing.decode import DecodeOptions, decode_image
from mlx_aimv2.processing.image_size import upright_size
from mlx_aimv2.processing.jxl import CONTAINER
from mlx_aimv2.processing.source_image import SourceImage

OPTIONS = DecodeOptions()


def turned(form: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x112] = orientation
    return encoded(smooth(20, 30), form, exif=exif)


def never(*_: object) -> Image.Image:
    raise AssertionError("the image was decoded")


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff", "gif", "bmp"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_of_a_file_is_that_of_its_decoded_image(form, orientation, monkeypatch, tmp_path):
    data = turned(form, orientation) if form not in ("gif", "bmp") else encoded(smooth(20, 30), form)
    (tmp_path / "a").write_bytes(data)
    expected = decode_image(data).size
    monkeypatch.setattr(image_size, "decode_image", never)
    assert upright_size(data, OPTIONS) == upright_size(tmp_path / "a", OPTIONS) == expected


def test_exif_behind_the_pixels_of_a_png():
    exif = Image.Exif()
    exif[0x112] = 6
    content = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(content) - 4) + content + struct.pack(">I", zlib.crc32(content))
    data = encoded(smooth(20, 30), "png")
    data = data[:-12] + chunk + data[-12:]
    assert upright_size(data, OPTIONS) == decode_image(data).size == (20, 30)


@pytest.mark.parametrize(
    "source",
    [noise(20, 30), smooth(20, 30), SourceImage("a", lambda: encoded(smooth(20, 30), "png"))],
    ids=["array", "Pillow", "part of a file"],
)
def test_the_size_of_other_images(source):
    assert upright_size(source, OPTIONS) == (30, 20)


def test_a_broken_file_has_no_size(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(BrokenImageError, match="not an image that can be read"):
        upright_size(tmp_path / "a.jpg", OPTIONS)
    with pytest.raises(ImageError, match="No such file"):
        upright_size(Path("nowhere.jpg"), OPTIONS)


def test_whatever_is_raised_for_a_header_the_image_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(stream: object) -> None:
        raise RuntimeError("of a library")

    data = encoded(smooth(20, 30), "png")
    monkeypatch.setattr(image_size, "identify", fail)
    assert upright_size(data, OPTIONS) == (30, 20)


def test_a_large_jpeg_xl_is_refused_before_its_plugin_decodes_it(monkeypatch):
    opened = []
    monkeypatch.setattr(image_size, "identify", opened.append)
    large = b"\xff\x0a" + (0b110 | 0xFFFFFFF << 3).to_bytes(20, "little")  # 30 bits for the height
    with pytest.raises(ImageTooLargeError):
        upright_size(large, OPTIONS)
    assert not opened


def test_whatever_a_damaged_header_raises_is_an_error_of_the_image():
    beyond = CONTAINER + struct.pack(">L4sQ", 1, b"abcd", 2**64 - 1)  # the next box cannot be sought
    with pytest.raises(BrokenImageError, match="cut off or damaged"):
        upright_size(beyond, OPTIONS)
