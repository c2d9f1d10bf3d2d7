"""The image processor: its sizes, its bounds, and what it refuses."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlx_aimv2.errors import ImageError, InputError
from mlx_aimv2.processing.decode import DecodeOptions
from mlx_aimv2.processing.image import ImageProcessor, ImageProcessorConfig, NativeOptions

PLAIN = {"do_rescale": False, "do_normalize": False}


NATIVE = ImageProcessorConfig.default(224, native=True)


def gradient(height: int, width: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 7, y * 5, x * y], -1).astype(np.uint8))


def native(**options: int) -> ImageProcessor:
    return ImageProcessor(NATIVE, native=NativeOptions(**options))


# --- options


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_patches": 0}, "min_patches is 0, but has to be a whole number of at least 1"),
        ({"max_patches": 4096.0}, "max_patches is 4096.0"),
        ({"min_patches": True}, "min_patches is True"),
        ({"max_patches": 100}, r"max_patches \(100\) is below min_patches \(112\)"),
    ],
)
def test_native_options_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NativeOptions(**fields)


def test_settings_are_plain_values() -> None:
    settings = ImageProcessor(NATIVE, decode=DecodeOptions(decode="fast")).settings()
    assert (settings["decode"], settings["background"]) == ("fast", "white")
    assert (settings["min_patches"], settings["max_patches"]) == (112, 4096)
    assert settings["patch_size"] == 14 and settings["do_resize"] is False
    assert json.loads(json.dumps(settings)) == settings


def test_settings_hold_only_what_decides_pixels() -> None:
    fixed = ImageProcessorConfig.default(224)
    more = replace(fixed, extra={"processor_class": "x"})
    options = DecodeOptions(max_megapixels=300), NativeOptions(max_patches=1000)
    assert ImageProcessor(fixed).settings() == ImageProcessor(more, 14, *options).settings()


def test_patch_size_is_checked() -> None:
    with pytest.raises(InputError, match="patch_size is 0"):
        ImageProcessor(NATIVE, patch_size=0)


# --- fixed size


def test_the_result_is_contiguous_writable_float32() -> None:
    for config in (ImageProcessorConfig(), NATIVE):
        result = ImageProcessor(config)(gradient(300, 401))
        assert result.dtype == np.float32 and result.flags.c_contiguous and result.flags.writeable
    assert result.shape == (294, 392, 3)


def test_rescale_and_normalize_can_be_left_out() -> None:
    base = {"size": 8, "crop_size": (8, 8)}
    image = gradient(8, 8)
    plain = np.asarray(image).astype(np.float32)
    assert np.array_equal(ImageProcessor(ImageProcessorConfig(**base, **PLAIN))(image), plain)
    rescaled = ImageProcessor(ImageProcessorConfig(**base, do_normalize=False))(image)
    assert np.allclose(rescaled, plain / 255)
    normalized = ImageProcessor(ImageProcessorConfig(**base, do_rescale=False, image_mean=(1.0, 2.0, 3.0)))(
        image
    )
    assert np.allclose(normalized, (plain - [1, 2, 3]) / ImageProcessorConfig().image_std)


def test_each_of_256_levels_is_the_float32_nearest_to_its_product() -> None:
    """The reference multiplies in float64 and rounds once; in float32, 126 of the levels would be others."""
    config = ImageProcessorConfig(size=16, crop_size=(16, 16), do_normalize=False)
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = ImageProcessor(config)(Image.fromarray(np.stack([levels] * 3, axis=-1)))
    expected = np.array([np.float32(level * (1 / 255)) for level in range(256)], np.float32).reshape(16, 16)
    for channel in range(3):
        assert np.array_equal(found[..., channel], expected)
    single = levels.astype(np.float32) * np.float32(1 / 255)
    assert np.count_nonzero(single != expected) == 126  # which is what the test is for


def test_a_crop_larger_than_the_image_is_padded_before_normalizing() -> None:
    config = ImageProcessorConfig(do_resize=False, crop_size=(5, 4))
    result = ImageProcessor(config)(np.full((2, 7, 3), 255, np.uint8))
    black, white = (
        ImageProcessor(config).normalize(Image.new("RGB", (1, 1), name))[0, 0] for name in ("black", "white")
    )
    assert np.array_equal(result[0, 0], black) and np.array_equal(result[2, 0], white)
    assert [bool((row == white).all()) for row in result] == [False, False, True, True, False]


@settings(max_examples=50)
@given(st.integers(1, 300), st.integers(1, 300), st.booleans(), st.booleans())
def test_output_size_is_the_size_of_the_output(height: int, width: int, resize: bool, crop: bool) -> None:
    config = ImageProcessorConfig(do_resize=resize, do_center_crop=crop, size=20, crop_size=(20, 24))
    processor = ImageProcessor(config)
    assert processor(gradient(height, width)).shape == (*processor.output_size(height, width), 3)


def test_normalize_does_the_arithmetic_and_nothing_else() -> None:
    image, config = gradient(30, 45), ImageProcessorConfig.default(28)
    expected = (np.asarray(image) / 255 - config.image_mean) / config.image_std
    pixels = ImageProcessor(config).normalize(image)
    assert pixels.dtype == np.float32 and pixels.flags.writeable
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_normalize_takes_nothing_but_rgb() -> None:
    with pytest.raises(
        InputError, match="normalize takes an image in mode RGB, not L: use decode_image first"
    ):
        ImageProcessor(NATIVE).normalize(Image.new("L", (9, 9)))


def test_native_resolution_at_one_size_is_a_processor_of_that_size() -> None:
    image = gradient(90, 130)
    expected = ImageProcessor(ImageProcessorConfig.default(56))(image)
    np.testing.assert_array_equal(native().at_size(56, 56)(image), expected)
    wide = native().at_size(28, 56)
    assert wide(image).shape == (28, 56, 3)
    np.testing.assert_array_equal(
        wide(image), wide.normalize(image.resize((56, 28), Image.Resampling.BICUBIC))
    )


@pytest.mark.parametrize("size", [(20, 28), (28, 20), (0, 28), (28, 4102), (-14, 28)])
def test_sizes_that_are_not_made_of_patches_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(
        InputError, match="both edges have to be a multiple of the patch size 14, at most 4096"
    ):
        native().at_size(*size)


def test_output_size_refuses_no_pixels() -> None:
    with pytest.raises(ImageError, match="an image of 0x5 has no pixels"):
        ImageProcessor(NATIVE).output_size(5, 0)


# --- native resolution


def test_within_the_range_only_the_rest_strip_is_cut() -> None:
    image = gradient(480, 640)
    processor = ImageProcessor(ImageProcessorConfig(do_resize=False, do_center_crop=False, **PLAIN))
    assert processor.is_native and processor.output_size(480, 640) == (476, 630)
    assert np.array_equal(processor(image), np.asarray(image)[:476, :630].astype(np.float32))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((3000, 4000), (55, 73)),
        ((4000, 3000), (73, 55)),
        ((896, 896), (64, 64)),
        ((910, 896), (64, 63)),
        ((100, 100), (11, 11)),
        ((1, 1), (11, 11)),
        ((1, 10_000), (1, 1059)),
        ((10_000, 1), (1059, 1)),
        ((1, 1_000_000), (1, 4096)),
    ],
)
def test_outside_the_range_the_shape_is_kept(size: tuple[int, int], expected: tuple[int, int]) -> None:
    height, width = native().output_size(*size)
    h, w = height // 14, width // 14
    assert height % 14 == width % 14 == 0 and 112 <= h * w <= 4096
    if min(size) > 50:
        assert abs(math.log(h / w * size[1] / size[0])) < 0.03
    assert (h, w) == expected


def test_min_patches_of_one_keeps_the_published_behaviour() -> None:
    assert native(min_patches=1).output_size(20, 50) == (14, 42)
    with pytest.raises(ImageError, match=r"13x50 is smaller than one patch \(14x14\); raise min_patches"):
        native(min_patches=1)(gradient(50, 13))


def test_native_images_are_resized_when_outside() -> None:
    assert native()(gradient(20, 30)).shape == (*native().output_size(20, 30), 3)
    assert native(max_patches=120)(gradient(300, 200)).shape == (
        *native(max_patches=120).output_size(300, 200),
        3,
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_fast_keeps_the_geometry_of_odd_sizes(orientation: int) -> None:
    y, x = np.mgrid[0:351, 0:485]
    wave = np.stack([np.sin(x / 20), np.cos(y / 25), np.sin((x + y) / 30)], -1)
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray((wave * 120 + 128).astype(np.uint8)).save(stream, "JPEG", quality=95, exif=exif)
    for config in (ImageProcessorConfig(size=40, crop_size=(40, 44), **PLAIN), replace(NATIVE, **PLAIN)):
        options = NativeOptions(min_patches=4, max_patches=9)
        exact, fast = (
            ImageProcessor(config, decode=DecodeOptions(decode=how), native=options)(stream.getvalue())
            for how in ("exact", "fast")
        )
        assert exact.shape == fast.shape
        assert 0 < np.abs(exact - fast).mean() < 0.7  # of 255; half a pixel of shift would be 5


def test_fast_resizes_only_what_the_crop_keeps() -> None:
    """The rest of the image, which the crop drops, has no part in the result."""
    stream = io.BytesIO()
    gradient(600, 1200).save(stream, "JPEG", quality=95)
    config = ImageProcessorConfig(size=40, crop_size=(40, 40), **PLAIN)
    uncropped = replace(config, do_center_crop=False)
    fast = DecodeOptions(decode="fast")
    cropped, whole = (ImageProcessor(each, decode=fast)(stream.getvalue()) for each in (config, uncropped))
    assert whole.shape == (40, 80, 3)
    assert np.abs(cropped - whole[:, 20:60]).max() <= 1  # the rounding between the two passes of the filter


def test_fast_reduces_only_what_is_reduced_anyway(tmp_path: Path) -> None:
    fast = DecodeOptions(decode="fast")
    options = NativeOptions(max_patches=144)
    for edge in (160, 340, 680, 1400):
        path = tmp_path / f"{edge}.jpg"
        Image.linear_gradient("L").resize((edge + 100, edge)).save(path)
        exact = ImageProcessor(NATIVE, native=options)(path)
        reduced = ImageProcessor(NATIVE, decode=fast, native=options)(path)
        assert exact.shape == reduced.shape and np.abs(exact - reduced).mean() < 0.05
