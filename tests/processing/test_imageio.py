"""macOS's ImageIO: on macOS itself, and elsewhere with modules in its place."""

from __future__ import annotations

import contextlib
import io
import sys
import types
from typing import Any

import numpy as np
import pytest
from helpers.encoded_images import encoded, smooth
from helpers.icc import in_srgb, matrix_of, rgb_profile
from PIL import Image

from mlx_aimv2.processing import imageio
from mlx_aimv2.processing.decode import DecodeOptions, decode_reduced

SIZE, SMALL, STRIDE = (400, 300), (134, 100), 160 * 4


class Quartz(types.ModuleType):
    """The functions of Quartz that are used, for CGImages that are Pillow images."""

    kCGImageAlphaNoneSkipLast, kCGBitmapByteOrder32Big = 5, 16384

    def __init__(self, image: Image.Image | None) -> None:
        super().__init__("Quartz")
        self.image, self.calls = image, {}  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("k"):
            return name
        raise AttributeError(name)

    def CFDataCreate(self, allocator: None, data: bytes, length: int) -> bytes:
        assert len(data) == length
        return data

    def CGImageSourceCreateWithData(self, data: bytes, options: None) -> bytes | None:
        return data or None

    def CGImageSourceGetPrimaryImageIndex(self, source: bytes) -> int:
        return 1

    def CGImageSourceCreateThumbnailAtIndex(self, source: bytes, index: int, options: Any) -> Any:
        self.calls["thumbnail"] = (index, options)
        return self.image

    def CGImageGetWidth(self, image: Image.Image) -> int:
        return image.width

    def CGImageGetHeight(self, image: Image.Image) -> int:
        return image.height

    def CGColorSpaceCreateWithName(self, name: str) -> str:
        return name

    def CGBitmapContextCreate(self, *arguments: Any) -> list[Any]:
        self.calls["context"] = arguments
        return []

    def CGRectMake(self, *rectangle: int) -> tuple[int, ...]:
        return rectangle

    def CGContextDrawImage(self, context: list[Any], rectangle: Any, image: Image.Image) -> None:
        assert rectangle == (0, 0, *image.size)
        context.append(image)

    def CGBitmapContextCreateImage(self, context: list[Any]) -> Image.Image:
        return context[0]

    def CGImageGetDataProvider(self, image: Image.Image) -> Image.Image:
        return image

    def CGDataProviderCopyData(self, image: Image.Image) -> bytes:
        rows = np.zeros((image.height, STRIDE), np.uint8)
        rows[:, : image.width * 4] = np.asarray(image.convert("RGBX")).reshape(image.height, -1)
        return rows.tobytes()

    def CGImageGetBytesPerRow(self, image: Image.Image) -> int:
        return STRIDE


@pytest.fixture
def quartz(monkeypatch: pytest.MonkeyPatch) -> Quartz:
    module = Quartz(smooth(100, 134))
    objc = types.ModuleType("objc")
    objc.autorelease_pool = contextlib.nullcontext  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "Quartz", module)
    monkeypatch.setitem(sys.modules, "objc", objc)
    return module


def test_pixels_are_drawn_in_srgb(quartz: Quartz) -> None:
    image = imageio.decode_smaller(b"file", SIZE, 134)
    assert image is not None and image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(quartz.image))
    index, options = quartz.calls["thumbnail"]
    assert index == 1
    assert options == {
        "kCGImageSourceCreateThumbnailFromImageAlways": True,
        "kCGImageSourceCreateThumbnailWithTransform": True,
        "kCGImageSourceThumbnailMaxPixelSize": 134,
        "kCGImageSourceShouldCache": False,
    }
    assert quartz.calls["context"] == (None, *SMALL, 8, 0, "kCGColorSpaceSRGB", 5 | 16384)


@pytest.mark.parametrize("size", [(100, 134), (134, 134), (120, 90), (134, 104)])
def test_an_image_of_another_size_is_not_used(quartz: Quartz, size: tuple[int, int]) -> None:
    quartz.image = Image.new("RGB", size)
    assert imageio.decode_smaller(b"file", SIZE, 134) is None


def test_what_cannot_be_decoded_is_left_to_pillow(quartz: Quartz, monkeypatch: pytest.MonkeyPatch) -> None:
    assert imageio.decode_smaller(b"", SIZE, 134) is None  # no source
    monkeypatch.setattr(quartz, "CGBitmapContextCreate", lambda *_: None)
    assert imageio.decode_smaller(b"file", SIZE, 134) is None
    quartz.image = None
    assert imageio.decode_smaller(b"file", SIZE, 134) is None
    monkeypatch.delattr(Quartz, "CFDataCreate")
    assert imageio.decode_smaller(b"file", SIZE, 134) is None


def test_without_quartz_pillow_decodes(quartz: Quartz, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Quartz", None)
    assert imageio.decode_smaller(b"file", SIZE, 134) is None


def test_heic_goes_through_it(quartz: Quartz) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(smooth(300, 400)).save(stream)
    result = decode_reduced(stream.getvalue(), DecodeOptions(decode="fast"), 50)
    assert result.size == SIZE and np.array_equal(np.asarray(result.image), np.asarray(quartz.image))
    quartz.image = None  # a failure
    assert decode_reduced(stream.getvalue(), DecodeOptions(decode="fast"), 50).image.size == SIZE


@pytest.mark.skipif(sys.platform != "darwin", reason="ImageIO is a part of macOS")
def test_imageio_itself_gives_upright_srgb() -> None:
    pytest.importorskip("Quartz")
    profile, exif = rgb_profile(matrix_of("Display P3"), 2.2), Image.Exif()
    exif[0x0112] = 6
    image = smooth().resize((1200, 900), Image.Resampling.BICUBIC)
    data = encoded(image, "JPEG", quality=98, subsampling=0, icc_profile=profile, exif=exif)
    result = imageio.decode_smaller(data, (900, 1200), 400)
    assert result is not None and result.size == (300, 400)
    stored = np.asarray(image.rotate(-90, expand=True).resize((300, 400), Image.Resampling.BOX))
    expected = in_srgb(stored, matrix_of("Display P3"), 2.2)
    assert np.abs(np.asarray(result, int) - expected).mean() < 4
