"""Samples of more than 8 bits as 8-bit levels."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.encoded_images import pixels
from helpers.tiffs import H, W, expected, samples, tiff

from mlx_aimv2.errors import ImageError
from mlx_aimv2.processing.scaling import scaled


@pytest.mark.parametrize("dtype", ["i2", "i4", "u4", "i8", "f4", "f8"])
def test_heights_are_the_same_image_whatever_they_are_measured_from(dtype: str) -> None:
    y, x = np.mgrid[0:40, 0:50]
    heights = (900 + 400 * np.sin(x / 9) + 300 * np.cos(y / 7)).round()
    want = np.rint((heights - heights.min()) / np.ptp(heights) * 255)
    for offset in (0, 100, 20_000, *([-500, -5000] if dtype[0] != "u" else [])):
        result = pixels(tiff((heights + offset).astype(dtype)))[..., 0]
        assert np.abs(result - want).max() <= 1e-9, (dtype, offset)


def test_no_data_nan_and_infinity_are_transparent_and_do_not_count() -> None:
    heights = np.linspace(100, 200, H * W).reshape(H, W)
    want = np.rint((heights - 100) / 100 * 255)
    hole = np.zeros((H, W), bool)
    hole[3:5, 4:9] = True
    want_low = np.rint((heights - heights[~hole].min()) / np.ptp(heights[~hole]) * 255)
    np.testing.assert_array_equal(want, want_low)
    for value, declared, dtype in (
        (-9999, b"-9999\0", np.float32),
        (-32768, b"-32768", np.int16),
        (np.nan, None, np.float32),
        (np.nan, b"nan", np.float64),
        (np.inf, None, np.float64),
        (-3.4028234663852886e38, b"-3.4028234663852886e+38\0", np.float32),
    ):
        stored = np.where(hole, value, heights).astype(dtype)
        result = pixels(tiff(stored, tags={42113: declared}))[..., 0].astype(int)
        assert (result[hole] == 255).all()  # the background
        truth = np.where(hole, heights, stored).astype(float)
        scale = np.rint((truth - truth[~hole].min()) / np.ptp(truth[~hole]) * 255)
        assert np.abs(result - scale)[~hole].max() <= 1, (value, dtype)
    gray = samples("u", 16, 1)
    gray[0, 0] = 0
    result = pixels(tiff(gray, tags={42113: b"0"}))
    assert (result[0, 0] == 255).all()
    np.testing.assert_array_equal(result[1:], expected(gray, "u", 16, 1)[1:])


def test_a_colour_is_no_data_only_where_all_its_channels_are() -> None:
    values = np.full((2, 2, 3), 30_000, np.uint16)
    values[0, 0], values[1, 1, 0] = 0, 0
    assert pixels(tiff(values, tags={42113: b"0"})).tolist() == [
        [[255] * 3, [117] * 3],
        [[117] * 3, [0, 117, 117]],
    ]


def test_floats_within_0_and_1_are_taken_as_they_are() -> None:
    values = np.linspace(0.25, 0.5, H * W * 3).reshape(H, W, 3)
    for dtype in (np.float16, np.float32, np.float64):
        want = np.rint(values.astype(dtype).astype(float) * 255)
        for planar in (False, True):
            np.testing.assert_array_equal(pixels(tiff(values.astype(dtype), planar=planar)), want)


def test_what_holds_no_number_is_refused() -> None:
    with pytest.raises(ImageError, match="no pixel holds a number: all are NaN, infinite or no data"):
        pixels(tiff(np.full((2, 2), np.nan, np.float32)))
    with pytest.raises(ImageError, match="no pixel holds a number"):
        pixels(tiff(np.full((2, 2), -9999, np.int16), tags={42113: b"-9999"}))


def test_constant_and_widest_values() -> None:
    assert scaled(np.full((2, 2), -7.0)).tolist() == [[0, 0], [0, 0]]
    widest = np.array([-1.7e308, 0.0, 1.7e308])
    assert scaled(widest).tolist() == [0, 128, 255]
    assert scaled(np.array([-(2**63), 0, 2**63 - 1], np.int64)).tolist() == [0, 128, 255]
