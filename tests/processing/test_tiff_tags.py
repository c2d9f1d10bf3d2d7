"""Tags of TIFF files that decide how pixels are read."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.encoded_images import pixels
from helpers.tiffs import expected, samples, tiff

from mlx_aimv2.errors import ImageError


def test_tags_without_meaning_for_pixels_are_not_read(recwarn: pytest.WarningsRecorder) -> None:
    values = samples("u", 16, 3)
    data = tiff(values, tags={270: b"x" * 3_000_000, 33_000: b"y" * 100, 700: b"<x", 34665: 5})
    np.testing.assert_array_equal(pixels(data), expected(values, "u", 16, 2))
    assert not recwarn.list


RGB8, RGB16 = samples("u", 8, 3), samples("u", 16, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            tiff(samples("f", 32, 2).view(np.complex64), 1),
            r"SampleFormat 6 \(complex floats\): not supported",
        ),
        (
            tiff(RGB16, 1, extra=(0, 0)),
            "SamplesPerPixel 3: PhotometricInterpretation 1 does not define which",
        ),
        (tiff(RGB16[..., :2], 2), "SamplesPerPixel 2: not enough for PhotometricInterpretation 2"),
        (tiff(RGB8, tags={259: 34712}), r"Compression 34712 \(JPEG 2000\): not supported"),
        (tiff(RGB8, tags={259: 34887}), r"Compression 34887 \(LERC\)"),
        (tiff(RGB8, tags={259: 9999}), "Compression 9999: not supported"),
        (tiff(RGB16, tags={259: 7}), "BitsPerSample 16: not supported with JPEG"),
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
        (tiff(RGB8[..., 0], 3), "ColorMap missing: not supported for a palette"),
        (
            tiff(samples("u", 32, 1), 3, tags={320: (0, 0, 0)}),
            "BitsPerSample 32: not supported for a palette",
        ),
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
