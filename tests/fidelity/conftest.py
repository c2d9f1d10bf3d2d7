"""A quantized checkpoint, and images to compare it on."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mlx_aimv2 import convert
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.quantization.scheme import Scheme


@pytest.fixture(scope="session")
def quantized(tiny_pair, tmp_path_factory):
    """Gives the tiny pair with so many bits."""
    root, written = tmp_path_factory.mktemp("quantized"), {}

    def at(bits):
        if bits not in written:
            options = ConvertOptions(scheme=Scheme(32, bits))
            written[bits] = convert(tiny_pair, root / str(bits), options=options)
        return written[bits]

    return at


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Eight files of noise, of two sizes."""
    folder = tmp_path_factory.mktemp("images")
    rng, paths = np.random.default_rng(0), []
    for number in range(8):
        size = (70, 84) if number % 2 else (112, 60)
        tint = rng.uniform(0.2, 1, 3)
        pixels = rng.integers(0, 256, (*size, 3)) * tint
        paths.append(folder / f"{number}.png")
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    return paths
