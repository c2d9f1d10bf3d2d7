"""TIFF files of every kind against pixels that are known without a reader, and the tags that are refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from helpers.encoded_images import encoded, pixels, smooth
from helpers.tiffs import H, W, expected, samples, tiff
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mlx_aimv2.errors import ImageError, ImageTooLargeError
from mlx_aimv2.processing.decode import DecodeOptions, decode_image

DROP = DecodeOptions(background="drop")


KINDS = [*[("u", n) for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 32, 64)]]


KINDS += [*[("i", n) for n in (8, 16, 32, 64)], *[("f", n) for n in (16, 32, 64)]]


@pytest.mark.parametrize(("photometric", "planar"), [(0, False), (1, False), (2, False), (2, True)])
@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_every_kind_of_sample_gives_its_pixels(kind: str, bits: int, photometric: int, planar: bool) -> None:
    values = samples(kind, bits, 3 if photometric == 2 else 1)
    want = expected(values, kind, bits, photometric)
    for order, compression in (("<", "none"), (">", "none"), ("<", "lzw"), (">", "deflate")):
        more: Any = {"order": order, "planar": planar, "compression": compression, "rows": 5}
        np.testing.assert_array_equal(pixels(tiff(values, photometric, bits, **more)), want, str(more))


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


RGB8, RGB16 = samples("u", 8, 3), samples("u", 16, 3)


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
