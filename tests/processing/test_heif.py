"""HEIC at a reduced size: thumbnails in the file, and what they may not replace."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from helpers.encoded_images import smooth
from helpers.icc import in_srgb, matrix_of, rgb_profile
from PIL import Image

from mlx_aimv2.processing import heif
from mlx_aimv2.processing.decode import Decoded, DecodeOptions, decode_reduced
from mlx_aimv2.processing.image import ImageProcessor, ImageProcessorConfig

pillow_heif = pytest.importorskip("pillow_heif", minversion="1.8")
FAST = DecodeOptions(decode="fast")
WIDTH, HEIGHT = 400, 300


def photo(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    return smooth(48, 64).resize((width, height), Image.Resampling.BICUBIC)


def heic(image: Image.Image, *others: Image.Image, orientation: int = 1, **options: Any) -> bytes:
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    file = pillow_heif.from_pillow(image)
    if orientation != 1:
        file[0].info["exif"] = exif.tobytes()
    for other in others:
        file.add_from_pillow(other)
    file.save(stream, quality=95, save_all=True, **options)
    return stream.getvalue()


def decoded(data: bytes, short_edge: int | None, options: DecodeOptions = FAST) -> Decoded:
    return decode_reduced(data, options, short_edge)


@pytest.mark.parametrize(("short_edge", "size"), [(75, (200, 150)), (76, (400, 300)), (37, (100, 74))])
def test_the_smallest_thumbnail_of_twice_the_size_is_enough(short_edge: int, size: tuple[int, int]) -> None:
    result = decoded(heic(photo(), thumbnails=[100, 200]), short_edge)
    assert result.image.size == size and result.size == (WIDTH, HEIGHT)
    assert result.box == (0, 0, *size)
    small = np.asarray(photo().resize(size), int)
    assert np.abs(np.asarray(result.image, int) - small).mean() < 4


def test_exact_decoding_and_an_unknown_size_take_the_whole_image() -> None:
    data = heic(photo(), thumbnails=[200])
    for result in (decoded(data, 20, DecodeOptions()), decoded(data, None), decoded(heic(photo()), 20)):
        assert result.image.size == result.size == (WIDTH, HEIGHT)


def test_a_thumbnail_of_another_shape_is_not_used() -> None:
    data = heic(photo(), photo(300, 300), thumbnails=[200])
    reference = b"thmb\0\2\0\1\0\1"  # item 2 is a thumbnail of item 1
    assert data.count(reference) == 1
    data = data.replace(reference, b"thmb\0\3\0\1\0\1")  # the square image instead
    assert decoded(data, 20).image.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_thumbnails_are_turned_like_the_image(orientation: int) -> None:
    data = heic(photo(), orientation=orientation, thumbnails=[200])
    fast, exact = decoded(data, 60), decoded(data, None)
    assert fast.size == exact.size == ((HEIGHT, WIDTH) if orientation > 4 else (WIDTH, HEIGHT))
    whole = np.asarray(exact.image.resize(fast.image.size), int)
    assert np.abs(np.asarray(fast.image, int) - whole).mean() < 4


def test_thumbnails_have_the_colors_of_the_image() -> None:
    image = Image.new("RGB", (WIDTH, HEIGHT), (150, 100, 120))
    image.info["icc_profile"] = rgb_profile(matrix_of("Display P3"), 2.2)
    data = heic(image, thumbnails=[200])
    plain = np.asarray(decoded(data, 60, DecodeOptions(decode="fast", color_managed=False)).image)
    result = decoded(data, 60).image
    assert result.size == (200, 150)
    assert np.abs(plain.astype(int) - (150, 100, 120)).max() <= 3
    assert np.abs(np.asarray(result, int) - in_srgb(plain, matrix_of("Display P3"), 2.2)).max() <= 2


def test_pixels_of_a_thumbnail_are_nearly_those_of_the_image() -> None:
    config = ImageProcessorConfig.default(64)
    data = heic(photo(), thumbnails=[200])
    fast = ImageProcessor(config, decode=FAST)(data).ravel()
    exact = ImageProcessor(config, decode=DecodeOptions(color_managed=True))(data).ravel()
    assert fast @ exact / np.linalg.norm(fast) / np.linalg.norm(exact) > 0.999


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_imageio_is_asked_only_for_opaque_images_with_managed_colors(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[tuple[int, int], int]] = []

    def decode_smaller(data: bytes, size: tuple[int, int], longest: int) -> Image.Image:
        assert data[4:8] == b"ftyp"
        asked.append((size, longest))
        return Image.new("RGB", (134, 100), "red")

    monkeypatch.setattr(heif.imageio, "decode_smaller", decode_smaller)
    data = heic(photo().convert(mode))
    result = decoded(data, 50)
    if mode == "RGBA":
        assert not asked and result.image.size == (WIDTH, HEIGHT)
        return
    assert asked == [((WIDTH, HEIGHT), 134)]
    assert result == Decoded(result.image, (WIDTH, HEIGHT), (0, 0, 134, 100))
    assert result.image.getpixel((0, 0)) == (255, 0, 0)
    decoded(data, 50, DecodeOptions(decode="fast", color_managed=False))
    decoded(data, 50, DecodeOptions())
    decoded(data, 150)  # not smaller
    assert len(asked) == 1
