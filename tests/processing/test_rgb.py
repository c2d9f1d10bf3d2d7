"""Every mode and array that becomes 8-bit RGB, and those that are refused."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from helpers.encoded_images import encoded, noise, pixels, png, smooth
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlx_aimv2.errors import ImageError, InputError
from mlx_aimv2.processing.decode import DecodeOptions, decode_image

DROP = DecodeOptions(background="drop")


# --- modes


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_modes_without_alpha_go_through_pillow(mode: str) -> None:
    # Pillow has no conversion to LAB without colour profiles
    image = Image.merge("LAB", smooth().split()) if mode == "LAB" else smooth().convert(mode)
    assert np.array_equal(pixels(image), np.asarray(image.convert("RGB")))
    assert np.array_equal(pixels(image, DROP), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_alpha_is_composited_or_dropped(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    if mode == "La":
        image = image.convert("LA").convert("La")
    elif mode == "PA":
        image = Image.merge("PA", [image.getchannel("R"), image.getchannel("A")])
        image.putpalette([0, 0, 0] * 256)
    else:
        image = image.convert(mode)
    assert pixels(image).tolist() == [[[255] * 3, [0] * 3]]
    assert pixels(image, DecodeOptions(background="#102030")).tolist() == [[[16, 32, 48], [0, 0, 0]]]
    assert pixels(image, DROP).tolist() == [[[0] * 3, [0] * 3]]


def test_half_transparent_pixels_mix() -> None:
    assert pixels(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).tolist() == [[[127] * 3]]


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_palette_transparency_is_composited(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    for form in ("PNG", "GIF"):
        if form == "GIF" and isinstance(transparency, bytes):
            continue
        data = encoded(image, form, transparency=transparency)
        assert pixels(data).tolist() == [[[255] * 3, [40, 50, 60]]]
        assert pixels(data, DROP).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_color_key_transparency_is_composited() -> None:
    rgb = png(2, 1, rows=b"\0\1\2\3\4\5\6", extra=struct.pack(">HHH", 1, 2, 3))
    assert pixels(rgb).tolist() == [[[255] * 3, [4, 5, 6]]]
    assert pixels(rgb, DROP).tolist() == [[[1, 2, 3], [4, 5, 6]]]
    gray = png(2, 1, kind=0, rows=b"\0\7\x09", extra=struct.pack(">H", 7))
    assert pixels(gray).tolist() == [[[255] * 3, [9] * 3]]
    assert pixels(gray, DROP).tolist() == [[[7] * 3, [9] * 3]]
    deep = png(2, 1, 16, 0, b"\0\x10\x00\x20\x20", struct.pack(">H", 0x1000))
    assert pixels(deep).tolist() == [[[255] * 3, [32] * 3]]


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N", "I"])
def test_sixteen_bits_are_scaled_by_their_range(mode: str) -> None:
    values = [0, 128, 129, 257, 32768, 65535]
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)
    assert pixels(image)[0, :, 0].tolist() == [round(value / 65535 * 255) for value in values]


def test_sixteen_bit_files_are_scaled() -> None:
    values = np.linspace(0, 65535, 256, dtype=np.uint16)[None]
    for form in ("PNG", "TIFF"):
        assert np.array_equal(pixels(encoded(Image.fromarray(values), form))[0, :, 0], np.arange(256))


def test_wide_integers_and_floats_are_stretched() -> None:
    wide = Image.fromarray(np.array([[-100, 0, 100_000]], dtype=np.int32))
    assert pixels(wide)[0, :, 0].tolist() == [0, 0, 255]
    assert pixels(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)))[0, :, 0].tolist() == [
        0,
        128,
        255,
    ]
    assert pixels(Image.fromarray(np.array([[-1.0, 0.0, 3.0]], dtype=np.float32)))[0, :, 0].tolist() == [
        0,
        64,
        255,
    ]
    assert pixels(Image.fromarray(np.full((1, 2), 7.0, dtype=np.float32)))[0, :, 0].tolist() == [0, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_transparent_and_do_not_count(value: float) -> None:
    image = Image.fromarray(np.array([[3.0, value, 5.0, 7.0]], dtype=np.float32))
    assert pixels(image)[0, :, 0].tolist() == [0, 255, 128, 255]
    assert pixels(image, DROP)[0, :, 0].tolist() == [0, 0, 128, 255]
    with pytest.raises(ImageError, match="F image of 1x1: no pixel holds a number"):
        decode_image(Image.fromarray(np.array([[value]], dtype=np.float32)))


def test_wide_integers_are_the_same_image_whatever_is_added() -> None:
    values = np.array([[200, 700, 1200]], dtype=np.int32)
    for offset in (0, -500, 10_000, 100_000):
        assert pixels(Image.fromarray(values + offset))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("most", [1023, 4095, 65535])
def test_the_greatest_value_of_pgm_is_white(most: int) -> None:
    values = np.array([[0, most // 3, most // 2, most]])
    want = np.rint(values / most * 255)[0].tolist()
    data = b"P5 4 1 %d\n" % most + values.astype(">u2").tobytes()
    assert pixels(data)[0, :, 0].tolist() == want
    assert pixels(Image.open(io.BytesIO(data)))[0, :, 0].tolist() == want
    dark = b"P5 4 1 %d\n" % most + (values // 2).astype(">u2").tobytes()  # nothing is stretched
    assert np.abs(pixels(dark)[0, :, 0] - np.array(want) / 2).max() <= 1
    color = b"P6 2 1 %d\n" % most + np.repeat(values[:, [0, 3]], 3).astype(">u2").tobytes()
    assert pixels(color).tolist() == [[[0] * 3, [255] * 3]]


# --- arrays


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_come_back_as_the_bytes_they_were(dtype: Any) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(pixels((levels / 255).astype(dtype))[..., 0], levels)


def test_arrays_of_one_three_and_four_channels() -> None:
    assert np.array_equal(pixels(noise()), noise())
    gray = noise(channels=1)
    assert np.array_equal(pixels(gray), np.repeat(gray, 3, -1))
    assert np.array_equal(pixels(gray[..., 0]), np.repeat(gray, 3, -1))
    clear = np.concatenate([noise(), np.zeros((7, 11, 1), np.uint8)], -1)
    assert (pixels(clear) == 255).all()
    assert np.array_equal(pixels(clear, DROP), noise())
    assert np.array_equal(pixels(noise()[::-1, ::2]), noise()[::-1, ::2])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((3, 8, 9), np.uint8),
            r"shape \(3, 8, 9\).*channels seem to come first.*transpose\(1, 2, 0\)",
        ),
        (np.zeros((2, 8, 9, 3), np.uint8), r"shape \(2, 8, 9, 3\).*one by one"),
        (np.zeros((8, 9, 2), np.uint8), r"shape \(8, 9, 2\)"),
        (np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.zeros((0, 5, 3), np.uint8), r"no pixels"),
        (np.zeros((8, 9, 3), np.int64), r"dtype int64"),
        (np.zeros((8, 9), bool), r"dtype bool"),
        (np.zeros((8, 9), np.uint16), r"dtype uint16"),
        (
            np.full((8, 9, 3), 255.0),
            r"float64 pixels from 255 to 255: .*uint8 in 0..255 or float.*in 0.0..1.0",
        ),
        (np.full((8, 9, 3), -0.1), r"from -0.1 to -0.1"),
        (np.full((8, 9, 3), np.nan, np.float16), r"from nan to nan"),
    ],
)
def test_other_arrays_are_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode_image(array)


@settings(max_examples=50)
@given(
    st.sampled_from([np.uint8, np.float32, np.int32]),
    st.lists(st.integers(0, 5), min_size=0, max_size=4).map(tuple),
    st.floats(width=32),
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_any_array_is_an_image_or_an_input_error(dtype: Any, shape: tuple[int, ...], value: float) -> None:
    array = np.full(shape, value, np.float32).astype(dtype)
    try:
        result = decode_image(array)
    except InputError:
        return
    assert (result.height, result.width) == shape[:2]
