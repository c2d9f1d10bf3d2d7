"""Colours declared by codes or in EXIF, held against the same conversion in NumPy."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from helpers.encoded_images import encoded, pixels
from helpers.icc import PRIMARIES, SRGB, encode_srgb, in_srgb, matrix, matrix_of
from PIL import Image, ImageCms

from mlx_aimv2.processing.declared_colors import ADOBE_RGB, declared_profile, rgb_profile
from mlx_aimv2.processing.decode import DecodeOptions, decode_reduced

FAST, MANAGED = DecodeOptions(decode="fast"), DecodeOptions(color_managed=True)
BT2020 = ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
COLORS = np.random.default_rng(0).integers(110, 146, (4, 4, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)


def heic(primaries: int, transfer: int, **options: Any) -> bytes:
    stream = io.BytesIO()
    file = pytest.importorskip("pillow_heif").from_pillow(Image.fromarray(COLORS))
    codes = {"color_primaries": primaries, "transfer_characteristics": transfer, "matrix_coefficients": 6}
    file.save(stream, quality=-1, chroma=444, **codes, full_range_flag=1, **options)
    return stream.getvalue()


def linear(colors: np.ndarray, transfer: int) -> np.ndarray:
    values = colors / 255
    if transfer == 13:
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return values ** {4: 2.2, 8: 1.0}[transfer]


@pytest.mark.parametrize("options", [FAST, MANAGED])
@pytest.mark.parametrize(("primaries", "transfer"), [(12, 13), (12, 4), (9, 13), (1, 8)])
def test_codes_of_heic_become_srgb(primaries: int, transfer: int, options: DecodeOptions) -> None:
    data = heic(primaries, transfer)
    stored = pixels(data)
    assert np.abs(stored.astype(int) - COLORS).max() <= 2  # exact decoding ignores them
    corners = {12: PRIMARIES["Display P3"], 9: BT2020, 1: SRGB}[primaries]
    expected = encode_srgb(linear(stored, transfer) @ matrix(corners).T @ np.linalg.inv(matrix(SRGB)).T)
    assert np.abs(stored.astype(int) - expected).max() > 4
    assert np.abs(pixels(data, options).astype(int) - expected).max() <= 2


@pytest.mark.parametrize(("primaries", "transfer"), [(1, 13), (1, 1), (2, 2), (9, 16), (9, 18)])
def test_srgb_unknown_codes_and_hdr_change_nothing(primaries: int, transfer: int) -> None:
    data = heic(primaries, transfer)
    assert np.array_equal(pixels(data, MANAGED), pixels(data))


def test_a_thumbnail_has_the_codes_of_its_image() -> None:
    pytest.importorskip("pillow_heif", minversion="1.8")
    image = Image.new("RGB", (400, 300), (150, 100, 120))
    stream = io.BytesIO()
    file = pytest.importorskip("pillow_heif").from_pillow(image)
    file.save(stream, quality=95, thumbnails=[200], color_primaries=12, transfer_characteristics=13)
    plain, managed = (
        np.asarray(
            decode_reduced(stream.getvalue(), DecodeOptions(decode="fast", color_managed=on), 60).image
        )
        for on in (False, True)
    )
    assert managed.shape == (150, 200, 3)
    expected = encode_srgb(linear(plain, 13) @ matrix_of("Display P3").T @ np.linalg.inv(matrix(SRGB)).T)
    assert np.abs(managed.astype(int) - expected).max() <= 2


def camera_jpeg(space: int, index: str) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = space
    exif.get_ifd(0x8769)[0xA005] = {1: index}
    return encoded(Image.fromarray(COLORS), "JPEG", quality=100, subsampling=0, exif=exif)


def test_cameras_declare_adobe_rgb_in_exif() -> None:
    data = camera_jpeg(0xFFFF, "R03")
    expected = in_srgb(pixels(data), matrix_of("Adobe RGB"), 563 / 256)
    assert np.abs(pixels(data).astype(int) - expected).max() > 4
    for options in (FAST, MANAGED):
        assert np.abs(pixels(data, options).astype(int) - expected).max() <= 2


@pytest.mark.parametrize(("space", "index"), [(1, "R03"), (0xFFFF, "R98")])
def test_other_exif_changes_nothing(space: int, index: str) -> None:
    data = camera_jpeg(space, index)
    assert np.array_equal(pixels(data, MANAGED), pixels(data))


def test_damaged_exif_declares_nothing() -> None:
    image = Image.new("RGB", (4, 4))
    image.info["exif"] = b"Exif\0\0II*\0\xff\xff\xff\xffR03"
    assert declared_profile(image) == b""


def test_profiles_are_valid() -> None:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(rgb_profile(ADOBE_RGB, 2.2))).profile
    assert profile.xcolor_space.strip() == "RGB" and profile.version == 4.3
    np.testing.assert_allclose(profile.red_colorant[0], matrix_of("Adobe RGB")[:, 0], atol=1e-3)
    srgb = ImageCms.ImageCmsProfile(io.BytesIO(rgb_profile(SRGB, None)))
    transform = ImageCms.buildTransform(srgb, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    changed = np.asarray(ImageCms.applyTransform(Image.fromarray(COLORS), transform), int)
    assert np.abs(changed - COLORS).max() <= 1
