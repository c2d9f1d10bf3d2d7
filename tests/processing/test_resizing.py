"""Output sizes, patch grids and crops of very large images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlx_aimv2.errors import ImageError
from mlx_aimv2.processing.decode import Decoded
from mlx_aimv2.processing.image import ImageProcessor, ImageProcessorConfig, NativeOptions
from mlx_aimv2.processing.resizing import resize_middle

PLAIN = {"do_rescale": False, "do_normalize": False}


NATIVE = ImageProcessorConfig.default(224, native=True)


EDGES = st.one_of(st.integers(1, 60), st.integers(1, 100_000))


def gradient(height: int, width: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 7, y * 5, x * y], -1).astype(np.uint8))


def native(**options: int) -> ImageProcessor:
    return ImageProcessor(NATIVE, native=NativeOptions(**options))


def test_elongated_images_are_cropped_without_computing_the_rest() -> None:
    processor = ImageProcessor(ImageProcessorConfig(**PLAIN))
    for shape in ((1, 200_000), (200_000, 1)):
        line = np.zeros((*shape, 3), np.uint8)
        line.reshape(-1, 3)[100_000:] = 255
        result = processor(line)
        assert result.shape == (224, 224, 3)
        across = result[112, :, 0] if shape[0] == 1 else result[:, 112, 0]
        assert across[0] < 128 < across[-1]
    with pytest.raises(ImageError, match="too elongated: it would be resized to 44800000x224 pixels"):
        ImageProcessor(ImageProcessorConfig(do_center_crop=False))(Image.new("RGB", (200_000, 1)))


@settings(max_examples=50)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
def test_the_middle_alone_equals_the_middle_of_the_whole(height: int, width: int, edge: int) -> None:
    processor = ImageProcessor(
        ImageProcessorConfig(size=edge, crop_size=(edge, edge), do_center_crop=False, **PLAIN)
    )
    image = gradient(height, width)
    whole = processor(image)
    top, left = (whole.shape[0] - edge) // 2, (whole.shape[1] - edge) // 2
    middle = resize_middle(Decoded.whole(image), whole.shape[:2], processor.config, Image.Resampling.BICUBIC)
    expected = whole[top : top + edge, left : left + edge]
    assert np.abs(np.asarray(middle).astype(int) - expected).mean() <= 2


@settings(max_examples=50)
@given(EDGES, EDGES, st.integers(1, 300), st.integers(0, 5000))
def test_every_size_has_a_grid_within_the_bounds(height: int, width: int, least: int, more: int) -> None:
    processor = native(min_patches=least, max_patches=least + more)
    if least == 1 and min(height, width) < 14:
        with pytest.raises(ImageError, match=f"{width}x{height} is smaller than one patch"):
            processor.output_size(height, width)
        return
    rows, columns = (edge / 14 for edge in processor.output_size(height, width))
    assert rows.is_integer() and columns.is_integer() and rows >= 1 and columns >= 1
    assert rows * columns <= least + more
    assert rows * columns >= least or more < least + 2
