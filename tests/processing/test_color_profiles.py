"""Colours of embedded profiles, held against the same conversion in NumPy."""

from __future__ import annotations

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from helpers.encoded_images import encoded, pixels
from helpers.icc import SRGB, cmyk_profile, encode_srgb, gray_profile, in_srgb, matrix, matrix_of, rgb_profile
from PIL import Image, ImageCms

from mlx_aimv2.processing.color_profiles import to_srgb
from mlx_aimv2.processing.decode import DecodeOptions, decode_image
from mlx_aimv2.processing.image import ImageProcessor, ImageProcessorConfig

FAST, MANAGED = DecodeOptions(decode="fast"), DecodeOptions(color_managed=True)
GAMMAS = {"Display P3": 2.2, "Adobe RGB": 2.19921875, "ProPhoto": 1.8, "swapped": 2.2}
PROFILES = {name: rgb_profile(matrix_of(name), gamma) for name, gamma in GAMMAS.items()}


def muted(seed: int = 0) -> np.ndarray:
    """Colours (16, 16, 3) that are in sRGB's gamut for every profile here."""
    return np.random.default_rng(seed).integers(90, 166, (16, 16, 3), dtype=np.uint8)


def with_profile(array: np.ndarray, profile: bytes, form: str = "PNG", **options: Any) -> bytes:
    return encoded(Image.fromarray(array), form, icc_profile=profile, **options)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("name", PROFILES)
def test_colors_of_a_profile_become_srgb(name: str, form: str) -> None:
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(form, {})
    data = with_profile(muted(), PROFILES[name], form, **lossless)
    expected = in_srgb(pixels(data, DecodeOptions()), matrix_of(name), GAMMAS[name])
    assert np.abs(expected.astype(int) - pixels(data, DecodeOptions())).max() > 4  # it does change something
    for options in (FAST, MANAGED):
        assert np.abs(pixels(data, options).astype(int) - expected).max() <= 2


def test_exact_decoding_ignores_profiles_as_the_reference_does() -> None:
    data = with_profile(muted(), PROFILES["swapped"])
    assert np.array_equal(pixels(data), muted())
    off = DecodeOptions(decode="fast", color_managed=False)
    assert np.array_equal(pixels(data, off), muted())


def test_srgb_itself_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(pixels(with_profile(muted(), profile), MANAGED), muted())


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_has_profiles_too(mode: str) -> None:
    gray = muted()[..., 0]
    expected = encode_srgb((gray / 255) ** 1.8)
    image = Image.fromarray(gray if mode != "I;16" else gray.astype(np.uint16) * 257)
    if mode == "LA":
        image.putalpha(255)
    shown = pixels(encoded(image, "PNG", icc_profile=gray_profile(1.8)), MANAGED)
    assert np.abs(shown.astype(int) - expected[..., None]).max() <= 1


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_inks_become_the_colors_of_their_profile(form: str) -> None:
    black = np.tile(np.arange(0, 256, 16, dtype=np.uint8), (16, 1))
    inks = Image.fromarray(np.dstack([np.full((16, 16, 3), 60, np.uint8), black]), mode="CMYK")
    data = encoded(inks, form, icc_profile=cmyk_profile(), **({"quality": 100} if form == "JPEG" else {}))
    lightness = 100 * (1 - black / 255)
    linear = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    expected = encode_srgb(linear)[..., None]
    assert np.abs(pixels(data, MANAGED).astype(int) - expected).max() <= 4
    assert np.abs(pixels(data).astype(int) - expected).max() > 20


def test_transparency_is_laid_over_the_background_in_srgb() -> None:
    data = np.dstack([muted(), np.full((16, 16), 255, np.uint8)])
    data[:8, :, 3] = 0
    options = DecodeOptions(color_managed=True, background="#20c0ff")
    shown = pixels(with_profile(data, PROFILES["swapped"]), options)
    assert (shown[:8] == (0x20, 0xC0, 0xFF)).all()
    expected = in_srgb(muted(), matrix_of("swapped"), 2.2)[8:]
    assert np.abs(shown[8:].astype(int) - expected).max() <= 2


def test_palettes_have_profiles_too() -> None:
    image = Image.fromarray(muted()).quantize(16)
    expected = in_srgb(np.asarray(image.convert("RGB")), matrix_of("swapped"), 2.2)
    shown = pixels(encoded(image, "PNG", icc_profile=PROFILES["swapped"]), MANAGED)
    assert np.abs(shown.astype(int) - expected).max() <= 2


def test_orientation_is_kept() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    array = muted()[:, :10]
    data = with_profile(array, PROFILES["swapped"], exif=exif)
    expected = in_srgb(np.rot90(array, -1), matrix_of("swapped"), 2.2)
    assert np.abs(pixels(data, MANAGED).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_phones_formats_have_profiles_too(form: str) -> None:
    flat = np.full((64, 64, 3), (150, 100, 120), np.uint8)
    if form == "HEIF":  # without making it known to all of Pillow
        image = Image.fromarray(flat)
        image.info["icc_profile"] = PROFILES["swapped"]
        stream = io.BytesIO()
        pytest.importorskip("pillow_heif").from_pillow(image).save(stream, quality=100)
        data = stream.getvalue()
    else:
        data = with_profile(flat, PROFILES["swapped"], form, quality=100)
    expected = in_srgb(pixels(data), matrix_of("swapped"), 2.2)
    assert np.abs(pixels(data).astype(int) - expected).max() > 4
    assert np.abs(pixels(data, MANAGED).astype(int) - expected).max() <= 2


def test_grey_may_keep_the_profile_of_its_coloured_original() -> None:
    expected = encode_srgb((muted()[..., 0] / 255) ** (461 / 256))[..., None]
    shown = pixels(with_profile(muted()[..., 0], PROFILES["ProPhoto"]), MANAGED)
    assert np.abs(shown.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("mode", ["RGBa", "La", "RGBX", "1"])
def test_unusual_modes_have_profiles_too(mode: str) -> None:
    source = {"La": "LA", "1": "L"}.get(mode, "RGBA" if mode == "RGBa" else "RGB")
    image = Image.fromarray(muted()).convert(source).convert(mode)
    image.info["icc_profile"] = PROFILES["ProPhoto"]
    before = pixels(image)
    shown = pixels(image, MANAGED)
    assert np.abs(shown.astype(int) - in_srgb(before, matrix_of("ProPhoto"), 1.8)).max() <= 2
    assert image.mode == mode


def test_a_color_that_means_transparent_is_found_before_the_conversion() -> None:
    array = muted()
    array[:8] = 100
    data = with_profile(array, PROFILES["swapped"], transparency=(100, 100, 100))
    shown = pixels(data, DecodeOptions(color_managed=True, background="#20c0ff"))
    assert (shown[:8] == (0x20, 0xC0, 0xFF)).all()
    expected = in_srgb(array, matrix_of("swapped"), 2.2)[8:]
    assert np.abs(shown[8:].astype(int) - expected).max() <= 2


def test_a_profile_that_lost_a_part_is_ignored_with_a_warning() -> None:
    chunk = b"ICC_PROFILE\0\x01\x02" + PROFILES["swapped"]  # the first of two, and the second is not there
    plain = encoded(Image.fromarray(muted()), "JPEG")
    data = plain[:2] + b"\xff\xe2" + (len(chunk) + 2).to_bytes(2, "big") + chunk + plain[2:]
    with pytest.warns(UserWarning, match=r"its colour profile is ignored \(it is cut off or damaged\)"):
        assert np.array_equal(pixels(data, MANAGED), pixels(plain))


def _of_class(name: bytes) -> bytes:
    return PROFILES["swapped"][:12] + name + PROFILES["swapped"][16:]


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (rgb_profile(np.zeros((3, 3)), 2.2), r"it makes \(0, 0, 0\) of white"),
        (rgb_profile(matrix_of("swapped") * [0.2, 1, 1], 2.2), "of white"),
        (_of_class(b"link"), "its class is 'link', which describes no image"),
        (_of_class(b"abst"), "its class is 'abst', which describes no image"),
        (cmyk_profile(), "it is for CMYK pixels, not for RGB"),
    ],
)
def test_a_profile_without_sense_is_ignored_with_a_warning(profile: bytes, reason: str) -> None:
    data = with_profile(muted(), profile)
    with pytest.warns(UserWarning, match=reason):
        assert np.array_equal(pixels(data, MANAGED), muted())


@pytest.mark.parametrize("profile", [b"nonsense" * 40, PROFILES["swapped"][:200], gray_profile(1.8)])
def test_a_profile_that_cannot_be_used_is_ignored_with_a_warning(profile: bytes) -> None:
    data = with_profile(muted(), profile)
    with pytest.warns(UserWarning, match=r"image of \d+ bytes: its colour profile is ignored \("):
        assert np.array_equal(pixels(data, MANAGED), muted())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(pixels(data), muted())


def test_images_without_a_profile_are_themselves() -> None:
    for mode in ("RGB", "L", "CMYK", "1", "YCbCr", "LAB", "F"):
        image = Image.new(mode, (3, 3))
        assert to_srgb(image, "it") is image
        image.info["icc_profile"] = b""
        assert to_srgb(image, "it") is image


def test_a_reduced_jpeg_is_converted_too() -> None:
    array = np.broadcast_to(np.uint8((150, 100, 120)), (640, 640, 3))
    data = with_profile(np.ascontiguousarray(array), PROFILES["swapped"], "JPEG", quality=95)
    shown = np.asarray(decode_image(data, FAST, 40))
    assert shown.shape == (80, 80, 3)
    expected = in_srgb(
        np.asarray(decode_image(data, DecodeOptions(decode="fast", color_managed=False), 40)),
        matrix_of("swapped"),
        2.2,
    )
    assert np.abs(shown.astype(int) - expected).max() <= 2


def test_threads_share_profiles() -> None:
    files = [with_profile(muted(seed), PROFILES[name]) for seed in range(8) for name in PROFILES]
    alone = [pixels(data, MANAGED) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: pixels(data, MANAGED), files * 4))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 4, together, strict=True))


def test_settings_tell_whether_colors_are_managed() -> None:
    def settings(options: DecodeOptions) -> bool:
        return ImageProcessor(ImageProcessorConfig.default(224, native=True), decode=options).settings()[
            "color_managed"
        ]

    assert settings(FAST) and settings(MANAGED)
    assert not settings(DecodeOptions()) and not settings(DecodeOptions(decode="fast", color_managed=False))


def test_the_matrix_of_srgb_is_the_known_one() -> None:
    known = [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
    np.testing.assert_allclose(matrix(SRGB), known, atol=2e-4)
