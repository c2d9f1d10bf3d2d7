"""Camera raw files: DNGs made by hand, with and without a preview, upright, broken and too large."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.dng import dng
from helpers.encoded_images import encoded
from helpers.icc import encode_srgb, in_srgb, matrix_of, rgb_profile
from helpers.tiffs import tiff
from PIL import Image

from mlx_aimv2.errors import BrokenImageError, ImageTooLargeError, MissingExtraError
from mlx_aimv2.processing.decode import Decoded, DecodeOptions, decode_image, decode_reduced
from mlx_aimv2.processing.image_size import upright_size
from mlx_aimv2.processing.raw import SIGNATURES, RawFile, is_raw

FAST = DecodeOptions(decode="fast")
WIDTH, HEIGHT = 160, 120
LEFT, RIGHT, PREVIEW = (0.8, 0.4, 0.2), (0.2, 0.4, 0.8), (10, 200, 90)


def scene() -> np.ndarray:
    """Two halves, and a white border above, so that the brightness needs no change."""
    linear = np.empty((HEIGHT, WIDTH, 3))
    linear[:, : WIDTH // 2], linear[:, WIDTH // 2 :] = LEFT, RIGHT
    linear[:10] = 1
    return linear


def preview(width: int = 120, height: int = 90, orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image = Image.new("RGB", (width, height), PREVIEW)
    image.paste((255, 255, 255), (0, 0, width, height // 4))
    return encoded(image, "JPEG", quality=95, exif=exif)


def with_preview(data: bytes, size: tuple[int, int] = (120, 90), orientation: int = 1) -> bytes:
    return dng(scene(), data, size, orientation)


def fast(data: bytes, short_edge: int) -> Decoded:
    pytest.importorskip("rawpy")
    return decode_reduced(data, FAST, short_edge)


def developed(data: bytes, options: DecodeOptions | None = None) -> np.ndarray:
    pytest.importorskip("rawpy")
    return np.asarray(decode_image(data, options))


def test_exact_decoding_develops_the_full_size_in_srgb() -> None:
    pixels = developed(with_preview(preview())).astype(int)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    for x, color in ((20, LEFT), (WIDTH - 20, RIGHT)):
        assert np.abs(pixels[60, x] - encode_srgb(np.array(color))).max() <= 2
    assert (pixels[4, 20] >= 253).all()


def test_the_white_balance_is_that_of_the_camera() -> None:
    linear = scene()
    linear[..., 0] *= 0.5  # a sensor that sees half of the red
    data = dng(linear, neutral=(0.5, 1.0, 1.0))
    assert np.abs(developed(data)[60, 20].astype(int) - encode_srgb(np.array(LEFT))).max() <= 3


def test_sensors_without_colors_are_grey() -> None:
    pixels = developed(dng(scene(), is_gray=True)).astype(int)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(pixels[60] - encode_srgb(np.array(LEFT[1]))).max() <= 2
    assert fast(dng(scene(), is_gray=True), 20).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_developed_images_are_upright(orientation: int) -> None:
    turns = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]
    pixels = developed(dng(scene(), orientation=orientation)).astype(int)
    upright = np.rot90(developed(dng(scene())).astype(int), turns)
    assert pixels.shape == upright.shape
    assert np.abs(pixels - upright).mean() < 2  # the edges of the halves are computed in another order


@pytest.mark.parametrize("own", [None, "same"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_preview_is_upright_with_or_without_its_own_orientation(own: str | None, orientation: int) -> None:
    data = with_preview(preview(orientation=orientation if own else None), orientation=orientation)
    result = fast(data, 45)
    sideways = orientation > 4
    assert result.size == ((HEIGHT, WIDTH) if sideways else (WIDTH, HEIGHT))
    assert result.image.size == ((90, 120) if sideways else (120, 90))
    assert result.box == (0, 0, *result.image.size)
    pixels = np.rot90(np.asarray(result.image, int), -{1: 0, 3: 2, 6: 3, 8: 1}[orientation])
    assert (pixels[:18] > 240).all()
    assert np.abs(pixels[30:] - PREVIEW).max() < 8


def test_a_preview_that_was_turned_already_stays() -> None:
    result = fast(with_preview(preview(90, 120), (90, 120), orientation=6), 45)
    assert result.image.size == (90, 120) and result.size == (HEIGHT, WIDTH)
    assert (np.asarray(result.image)[:20] > 240).all()


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (preview(88, 66), (88, 66)),  # too small
        (preview(120, 120), (120, 120)),  # another aspect ratio
        (preview()[:400], (120, 90)),  # cut off
        (b"\xff\xd8nonsense" * 9, (120, 90)),
    ],
)
def test_a_preview_that_cannot_be_used_is_not(data: bytes, size: tuple[int, int]) -> None:
    result = fast(with_preview(data, size), 45)
    assert result.image.size == result.size == (WIDTH, HEIGHT)
    assert np.abs(np.asarray(result.image, int)[60, 20] - encode_srgb(np.array(LEFT))).max() <= 2


def test_a_preview_that_a_library_fails_at_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bool:
        raise ValueError("damaged EXIF")

    monkeypatch.setattr(RawFile, "_turn", fail)
    result = fast(with_preview(preview()), 45)
    assert result.image.size == result.size == (WIDTH, HEIGHT)


def test_previews_have_their_own_colors() -> None:
    profile = rgb_profile(matrix_of("Display P3"), 2.2)
    image = Image.new("RGB", (120, 90), (150, 100, 120))
    data = with_preview(encoded(image, "JPEG", quality=95, icc_profile=profile))
    pytest.importorskip("rawpy")
    plain = np.asarray(decode_reduced(data, DecodeOptions(decode="fast", color_managed=False), 45).image)
    assert np.abs(plain.astype(int) - (150, 100, 120)).max() <= 2
    expected = in_srgb(plain, matrix_of("Display P3"), 2.2)
    assert np.abs(np.asarray(fast(data, 45).image, int) - expected).max() <= 2


def test_large_previews_are_reduced_while_they_are_decoded() -> None:
    assert fast(with_preview(preview()), 20).image.size == (60, 45)


def test_half_the_size_is_developed_where_it_is_enough() -> None:
    result = fast(dng(scene()), 30)
    assert result.image.size == (80, 60) and result.size == (WIDTH, HEIGHT)
    assert np.abs(np.asarray(result.image, int)[30, 10] - encode_srgb(np.array(LEFT))).max() <= 2
    assert fast(dng(scene()), 31).image.size == (WIDTH, HEIGHT)


def test_the_size_is_read_from_the_header() -> None:
    pytest.importorskip("rawpy")
    assert upright_size(with_preview(preview(), orientation=6), DecodeOptions()) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("options", [DecodeOptions(), FAST])
def test_too_many_pixels_are_refused_before_they_are_read(options: DecodeOptions) -> None:
    pytest.importorskip("rawpy")
    data = dng(scene(), preview(), (120, 90), size=(60000, 60000))
    with pytest.raises(ImageTooLargeError, match=r"60000x60000 is 3600.0 megapixels, more than the 200"):
        decode_reduced(data, options, 45)


def test_missing_pixels_are_named(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rawpy")
    with pytest.raises(BrokenImageError, match=r"image of \d+ bytes: cut off or damaged \(LibRaw: Input"):
        decode_image(dng(scene(), size=(1600, 1200)))
    data = dng(scene())
    with pytest.raises(BrokenImageError, match="cut off or damaged"):
        decode_image(data[: len(data) // 2])
    capfd.readouterr()  # LibRaw prints a line of its own


def test_a_file_of_an_unknown_camera_is_named(tmp_path: Path) -> None:
    rawpy = pytest.importorskip("rawpy")
    path = tmp_path / "photo.nef"
    path.write_bytes(tiff(np.zeros((8, 8), np.uint8)))
    with pytest.raises(
        BrokenImageError, match=r"damaged, or of a camera that LibRaw \d+\.\d+\.\d+ does not"
    ) as caught:
        decode_image(path)
    assert str(caught.value).startswith(f"{path}: ") and rawpy.libraw_version[0] >= 0


def test_without_rawpy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rawpy", None)
    with pytest.raises(
        MissingExtraError,
        match=r"^Reading camera raw images needs the package rawpy: pip install 'mlx-aimv2\[raw\]'$",
    ):
        decode_image(dng(scene()))


def test_raw_files_are_told_by_their_content(tmp_path: Path) -> None:
    for offset, mark in SIGNATURES:
        assert is_raw(io.BytesIO(bytes(offset) + mark + bytes(40)))
    assert is_raw(io.BytesIO(dng(scene()))) and is_raw(io.BytesIO(with_preview(preview())))
    gray = np.zeros((8, 8), np.uint8)
    for order in "<>":
        assert is_raw(io.BytesIO(tiff(gray, 32803, order=order)))
        assert is_raw(io.BytesIO(tiff(gray, 34892, order=order)))
        assert not is_raw(io.BytesIO(tiff(gray, order=order)))
    for data in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", preview(), bytes(99)):
        assert not is_raw(io.BytesIO(data))
    for name, is_camera in (("a.NEF", True), ("a.tif", False)):
        path = tmp_path / name
        path.write_bytes(tiff(gray))
        with path.open("rb") as stream:
            assert is_raw(stream) == is_camera
            assert stream.tell() == 0


def test_pages_that_lead_in_a_circle_end() -> None:
    data = bytearray(tiff(np.zeros((8, 8), np.uint8)))
    directory = int.from_bytes(data[4:8], "little")
    entries = int.from_bytes(data[directory : directory + 2], "little")
    at = directory + 2 + 12 * entries
    data[at : at + 4] = data[4:8]
    assert not is_raw(io.BytesIO(bytes(data)))
