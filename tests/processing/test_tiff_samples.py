"""Strips, tiles, compressions and predictors of TIFF files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import tiffs
from helpers.encoded_images import pixels
from helpers.tiffs import H, W, expected, samples, tiff

from mlx_aimv2.errors import BrokenImageError


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
