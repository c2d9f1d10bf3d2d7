"""TIFF files of every kind against pixels that are known without a reader, and the tags that are refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from helpers import tiffs
from helpers.encoded_images import encoded, pixels, smooth
from helpers.tiffs import tiff
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mlx_aimv2.errors import BrokenImageError, ImageError, ImageTooLargeError
from mlx_aimv2.processing.decode import DecodeOptions, decode_image
from mlx_aimv2.processing.scaling import scaled

DROP = DecodeOptions(background="drop")
H, W = 13, 21
KINDS = [*[("u", n) for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 32, 64)]]
KINDS += [*[("i", n) for n in (8, 16, 32, 64)], *[("f", n) for n in (16, 32, 64)]]


def samples(kind: str, bits: int, channels: int) -> np.ndarray:
    rng, shape = np.random.default_rng(bits), (H, W, channels)
    if kind == "f":
        return (rng.random(shape) * 800 - 100).astype(f"f{bits // 8}")
    if kind == "i":
        return rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape, np.int64).astype(f"i{bits // 8}")
    width = next(n for n in (8, 16, 32, 64) if n >= bits)
    return rng.integers(0, 2**bits, shape, np.uint64).astype(f"u{width // 8}")


def expected(values: np.ndarray, kind: str, bits: int, photometric: int) -> np.ndarray:
    if kind == "u" and bits == 16 and photometric == 2:
        levels = values >> 8
    elif kind == "u" and bits <= 16:
        levels = np.rint(values / (2**bits - 1) * 255)
    else:
        wide = values.astype(np.float64)
        levels = np.rint((wide - wide.min()) / (wide.max() - wide.min()) * 255)
    return np.broadcast_to(255 - levels if photometric == 0 else levels, (H, W, 3))


@pytest.mark.parametrize(("photometric", "planar"), [(0, False), (1, False), (2, False), (2, True)])
@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_every_kind_of_sample_gives_its_pixels(kind: str, bits: int, photometric: int, planar: bool) -> None:
    values = samples(kind, bits, 3 if photometric == 2 else 1)
    want = expected(values, kind, bits, photometric)
    for order, compression in (("<", "none"), (">", "none"), ("<", "lzw"), (">", "deflate")):
        more: Any = {"order": order, "planar": planar, "compression": compression, "rows": 5}
        np.testing.assert_array_equal(pixels(tiff(values, photometric, bits, **more)), want, str(more))


@pytest.mark.parametrize("compression", list(tiffs.CODES))
@pytest.mark.parametrize("tile", [None, (16, 16), (32, 48)])
def test_strips_and_tiles_of_every_compression(compression: str, tile: Any) -> None:
    for kind, bits in (("u", 16), ("u", 12), ("f", 32), ("u", 8), ("u", 1)):
        for planar in (False, True):
            values = samples(kind, bits, 3)
            data = tiff(values, 2, bits, planar=planar, compression=compression, tile=tile, rows=4)
            np.testing.assert_array_equal(pixels(data), expected(values, kind, bits, 2), f"{kind}{bits}")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [False, True])
def test_predictors_are_undone(order: str, planar: bool) -> None:
    for kind, bits in (("u", 8), ("u", 16), ("i", 16), ("u", 32), ("f", 16), ("f", 32), ("f", 64)):
        for predictor in (2, 3) if kind == "f" else (2,):
            for tile in (None, (16, 16)):
                values = samples(kind, bits, 3)
                layout: Any = {"order": order, "planar": planar, "tile": tile, "rows": 5}
                data = tiff(values, 2, bits, compression="deflate", predictor=predictor, **layout)
                np.testing.assert_array_equal(pixels(data), expected(values, kind, bits, 2), f"{kind}{bits}")


@pytest.mark.parametrize("compression", ["none", "lzw"])
@pytest.mark.parametrize("bits", [1, 8, 12, 16])
def test_bytes_filled_from_the_other_end(bits: int, compression: str) -> None:
    for photometric, channels in ((0, 1), (1, 1), (2, 3)):
        values = samples("u", bits, channels)
        data = tiff(values, photometric, bits, fill_order=2, compression=compression)
        np.testing.assert_array_equal(pixels(data), expected(values, "u", bits, photometric))


@pytest.mark.parametrize("order", ["<", ">"])
def test_bigtiff(order: str) -> None:
    for kind, bits in (("u", 8), ("u", 16), ("f", 32)):
        values = samples(kind, bits, 3)
        data = tiff(values, 2, bits, order=order, big=True, rows=4)
        np.testing.assert_array_equal(pixels(data), expected(values, kind, bits, 2))


# --- alpha, palettes, other colours


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_alpha_of_any_width(bits: int, planar: bool) -> None:
    values = samples("u", bits, 4)
    colors, alpha = values[..., :3], values[..., 3:] / (2**bits - 1)
    want = np.rint(colors / (2**bits - 1) * 255 * alpha + 255 * (1 - alpha))
    free = tiff(values, 2, bits, planar=planar, extra=(2,))
    assert np.abs(pixels(free) - want).max() <= 1
    multiplied = np.concatenate([np.rint(colors * alpha).astype(values.dtype), values[..., 3:]], -1)
    assert np.abs(pixels(tiff(multiplied, 2, bits, planar=planar, extra=(1,))) - want).max() <= 2
    unknown = tiff(values, 2, bits, planar=planar, extra=(0,))
    assert np.abs(pixels(unknown) - np.rint(colors / (2**bits - 1) * 255)).max() <= 1


def test_float_alpha_and_gray_alpha() -> None:
    color = np.linspace(0, 1, H * W, dtype=np.float32).reshape(H, W, 1)
    alpha = np.where(np.arange(W) % 2, 1.0, 0.0).astype(np.float32)[None, :, None].repeat(H, 0)
    want = np.where(alpha == 1, np.rint(color.astype(float) * 255), 255).repeat(3, -1)
    np.testing.assert_array_equal(pixels(tiff(np.concatenate([color, alpha], -1), 1, extra=(2,))), want)
    gray = samples("u", 16, 2)
    np.testing.assert_array_equal(
        pixels(tiff(gray, 1, extra=(2,)), DROP), expected(gray[..., :1], "u", 16, 1)
    )


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_palettes_of_8_and_16_bits(bits: int, planar: bool) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (3, 2**bits))
    index = samples("u", bits, 1)
    for scale in (1, 257):  # some writers take 8 bits for 16
        data = tiff(index, 3, bits, planar=planar, tags={320: tuple((colors * scale).reshape(-1).tolist())})
        np.testing.assert_array_equal(pixels(data), colors.T[index[..., 0]])


@pytest.mark.parametrize("planar", [False, True])
def test_cmyk_of_8_and_16_bits(planar: bool) -> None:
    inks = samples("u", 8, 4)
    want = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB"))
    for compression in ("none", "lzw"):
        more: Any = {"planar": planar, "compression": compression}
        np.testing.assert_array_equal(pixels(tiff(inks, 5, **more)), want)
        np.testing.assert_array_equal(pixels(tiff(inks.astype(np.uint16) * 257, 5, **more)), want)


@pytest.mark.parametrize("planar", [False, True])
def test_lab_of_8_and_16_bits_in_both_encodings(planar: bool) -> None:
    lab = samples("u", 8, 3)  # a* and b* from -128 on
    bands = [Image.fromarray(np.ascontiguousarray(lab[..., c])) for c in range(3)]
    want = np.asarray(Image.merge("LAB", bands).convert("RGB")).astype(int)
    signed = np.concatenate([lab[..., :1], lab[..., 1:] ^ 128], -1)
    assert np.abs(pixels(tiff(signed, 8, planar=planar)) - want).max() == 0
    assert np.abs(pixels(tiff(lab, 9, planar=planar)) - want).max() == 0
    wide = np.concatenate(
        [lab[..., :1].astype(np.uint16) * 257, (signed[..., 1:].astype(np.uint16) << 8)], -1
    )
    assert np.abs(pixels(tiff(wide, 8, planar=planar)) - want).max() == 0
    icc = np.concatenate([lab[..., :1].astype(np.uint16) * 256, lab[..., 1:].astype(np.uint16) << 8], -1)
    assert np.abs(pixels(tiff(icc, 9, planar=planar)) - want).max() == 0


@pytest.mark.parametrize("compression", ["none", "lzw"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_ycbcr_with_and_without_subsampling(order: str, compression: str) -> None:
    flat = np.zeros((16, 16, 3), np.uint8) + np.array([120, 60, 200], np.uint8)
    want = np.asarray(Image.fromarray(flat, "YCbCr").convert("RGB")).astype(int)
    whole = tiff(flat, 6, order=order, compression=compression, tags={530: (1, 1)})
    assert np.abs(pixels(whole) - want).max() <= 1
    planes = tiff(flat, 6, order=order, compression=compression, planar=True, tags={530: (1, 1)})
    assert np.abs(pixels(planes) - want).max() <= 1
    # blocks of 2x2 pixels: four Y, one Cb, one Cr
    blocks = np.array([120] * 4 + [60, 200], np.uint8).reshape(1, 1, 6).repeat(64, 1)
    half = tiff(
        blocks,
        6,
        order=order,
        compression=compression,
        tags={256: 16, 257: 16, 258: (8, 8, 8), 277: 3, 278: 16, 339: (1, 1, 1), 530: (2, 2)},
    )
    assert np.abs(pixels(half) - want).max() <= 1


# --- one rule for deep samples


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


# --- what else there is in a file


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_deep_files(orientation: int) -> None:
    stored = np.zeros((2, 3), np.uint16)
    stored[0, 0] = 65535
    result = pixels(tiff(stored, tags={274: orientation}))[..., 0]
    assert result.shape == ((2, 3) if orientation < 5 else (3, 2))
    corner = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}
    bottom, right = corner[orientation]
    assert result[-1 if bottom else 0, -1 if right else 0] == 255 and result.sum() == 255


def test_a_last_strip_may_be_declared_longer_or_shorter_than_it_is() -> None:
    values = samples("u", 16, 1)
    for counts in ((2 * W * 5,) * 3, (1,) * 3, None):
        np.testing.assert_array_equal(
            pixels(tiff(values, rows=5, tags={279: counts})), expected(values, "u", 16, 1)
        )


def test_lengths_that_are_missing_do_not_matter_to_what_is_compressed() -> None:
    values = samples("u", 16, 1)
    data = tiff(values, compression="deflate", tags={279: None})
    np.testing.assert_array_equal(pixels(data), expected(values, "u", 16, 1))


def test_tags_without_meaning_for_pixels_are_not_read(recwarn: pytest.WarningsRecorder) -> None:
    values = samples("u", 16, 3)
    data = tiff(values, tags={270: b"x" * 3_000_000, 33_000: b"y" * 100, 700: b"<x", 34665: 5})
    np.testing.assert_array_equal(pixels(data), expected(values, "u", 16, 2))
    assert not recwarn.list


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate"])
@pytest.mark.parametrize("planar", [False, True])
def test_cut_files_are_refused(planar: bool, compression: str) -> None:
    data = tiff(samples("u", 16, 3), planar=planar, compression=compression, rows=4)
    with pytest.raises(BrokenImageError, match="cut off or damaged"):
        short = tiff(samples("u", 16, 3), planar=planar, compression=compression, tags={257: 4 * H})
        pixels(short)
    for keep in (4, 10, 60, len(data) // 2, len(data) - 30):
        with pytest.raises(BrokenImageError):
            pixels(data[:keep])


RGB8, RGB16 = samples("u", 8, 3), samples("u", 16, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            tiff(samples("f", 32, 2).view(np.complex64), 1),
            r"SampleFormat 6 \(complex floats\): not supported",
        ),
        (tiff(RGB16, 1, extra=(0, 0)), "SamplesPerPixel 3: which are colours is not said by Photometric"),
        (tiff(RGB16[..., :2], 2), "SamplesPerPixel 2: not enough for PhotometricInterpretation 2"),
        (tiff(RGB8, tags={259: 34712}), r"Compression 34712 \(JPEG 2000\): not supported"),
        (tiff(RGB8, tags={259: 34887}), r"Compression 34887 \(LERC\)"),
        (tiff(RGB8, tags={259: 9999}), "Compression 9999: not supported"),
        (tiff(RGB16, tags={259: 7}), "BitsPerSample 16: not supported with JPEG"),
        (tiff(RGB16[..., 0], 32803), r"PhotometricInterpretation 32803 \(the raw data of a camera\)"),
        (tiff(RGB16, 32845), r"PhotometricInterpretation 32845 \(LogLuv\)"),
        (tiff(RGB16, tags={284: 3}), "PlanarConfiguration 3"),
        (tiff(RGB8, tags={258: (5, 6, 5)}), r"BitsPerSample \(5, 6, 5\): not supported"),
        (tiff(RGB8, tags={339: (1, 2, 1)}), r"SampleFormat \(1, 2, 1\)"),
        (
            tiff(RGB8, 1, tags={339: 3, 258: 24, 277: 1}),
            "BitsPerSample 24: not supported with SampleFormat 3",
        ),
        (
            tiff(RGB8, 1, tags={339: 1, 258: 24, 277: 1}),
            "BitsPerSample 24: not supported with SampleFormat 1",
        ),
        (tiff(RGB8, compression="lzw", tags={317: 9}), "Predictor 9: not supported"),
        (tiff(RGB16, compression="lzw", tags={317: 3}), "Predictor 3: not possible with SampleFormat 1"),
        (
            tiff(RGB16 >> 4, 2, 12, compression="lzw", tags={317: 2}),
            "Predictor 2: not supported with BitsPer",
        ),
        (tiff(RGB8, 6, planar=True), "YCbCrSubSampling missing: not supported with PlanarConfiguration 2"),
        (tiff(RGB16, 6), "BitsPerSample 16: not supported for YCbCr"),
        (tiff(samples("u", 8, 4), 5, tags={332: 2}), "InkSet 2: inks other than cyan"),
        (tiff(samples("u", 8, 5), 5, extra=(2,)), "ExtraSamples 2: transparency is not supported with Photo"),
        (tiff(samples("i", 16, 4), 5), "SampleFormat 2: not supported with PhotometricInterpretation 5"),
        (tiff(samples("f", 32, 3), 8), "SampleFormat 3: not supported with PhotometricInterpretation 8"),
        (
            tiff(samples("u", 12, 3), 8, 12),
            "BitsPerSample 12: not supported with PhotometricInterpretation 8",
        ),
        (tiff(RGB8[..., 0], 3), "ColorMap missing: a palette cannot be read like that"),
        (tiff(samples("u", 32, 1), 3, tags={320: (0, 0, 0)}), "BitsPerSample 32: a palette cannot be"),
        (tiff(RGB16, tile=(16, 16), tags={322: 0}), "TileWidth 0: not possible"),
        (
            tiff(RGB8, order=">", big=True, tags={259: 7}),
            r"Compression 7: not supported in a BigTIFF file of",
        ),
        (tiff(RGB16, tags={256: None}), "a TIFF file without ImageWidth"),
    ],
)
def test_what_cannot_be_read_is_refused_by_the_name_of_its_tag(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        pixels(data)
    assert "\n" not in str(caught.value)


def test_more_memory_than_the_limit_is_refused() -> None:
    data = tiff(RGB16, tags={258: (64,) * 3, 256: 999, 257: 1000})
    with pytest.raises(ImageTooLargeError, match="999x1000 with 3 samples of 64 bits is more than memory is"):
        decode_image(data, DecodeOptions(max_megapixels=1))
    with pytest.raises(ImageTooLargeError, match=r"is 100\.0 megapixels"):
        decode_image(tiff(RGB16, tags={256: 10_000, 257: 10_000}), DecodeOptions(max_megapixels=1))


def test_ordinary_files_are_what_pillow_reads() -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK"):
        for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
            data = encoded(smooth().convert(mode), "TIFF", compression=compression)
            want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            np.testing.assert_array_equal(pixels(data, DROP), want)
    for compression in ("group3", "group4", "tiff_ccitt"):
        data = encoded(smooth().convert("1"), "TIFF", compression=compression)
        np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    data = encoded(smooth(), "TIFF", compression="jpeg")
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


SEEDS = [
    tiff(samples("u", 16, 3), planar=True, compression="lzw", rows=4),
    tiff(samples("f", 32, 3), compression="deflate", predictor=3, tile=(16, 16)),
    tiff(samples("u", 12, 1), 0, 12, order=">", tags={42113: b"7"}),
    tiff(samples("i", 16, 1), big=True, order=">"),
    tiff(samples("u", 8, 1), 3, planar=True, tags={320: tuple(range(768))}),
]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
    st.integers(0, 400),
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, about tags
def test_damaged_files_are_images_or_image_errors(
    seed: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(seed)
    for at, value in changes:
        data[len(data) - 1 - at % min(len(data), 400)] = value  # where the tags are
    try:
        assert decode_image(bytes(data[: len(data) - cut]), DecodeOptions(max_megapixels=1)).mode == "RGB"
    except ImageError as error:
        assert "\n" not in str(error)
