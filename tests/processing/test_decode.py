"""Every kind of source that `decode_image` takes, upright and in RGB."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.encoded_images import encoded, noise, pixels, smooth
from PIL import Image

from mlx_aimv2.errors import (
    BrokenImageError,
    MissingExtraError,
)
from mlx_aimv2.processing.decode import DecodeOptions, decode_image

# --- sources


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "PPM", "WEBP"])
def test_lossless_formats_come_back_as_they_were(form: str) -> None:
    data = encoded(Image.fromarray(noise()), form, **({"lossless": True} if form == "WEBP" else {}))
    assert np.array_equal(pixels(data), noise())


def test_paths_bytes_and_files_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(noise()).save(path)
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        assert np.array_equal(pixels(source), noise())


def test_a_file_is_read_from_its_position_and_left_open() -> None:
    stream = io.BytesIO(b"header" + encoded(Image.fromarray(noise()), "PNG"))
    stream.seek(6)
    assert np.array_equal(pixels(stream), noise())
    assert not stream.closed


def test_a_pipe_is_read(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, encoded(Image.fromarray(noise()), "PNG"))
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        assert np.array_equal(pixels(stream), noise())


def test_files_are_closed_on_success_and_on_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = tmp_path / "good.gif", tmp_path / "bad.png"
    smooth().quantize(8).save(good, save_all=True, append_images=[smooth().quantize(4)])
    bad.write_bytes(encoded(smooth(), "PNG")[:60])
    streams = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda *args: streams.append(real(*args)) or streams[-1])
    decode_image(good)
    with pytest.raises(BrokenImageError):
        decode_image(bad)
    assert len(streams) == 2 and all(stream.closed for stream in streams)


def test_a_pillow_image_is_neither_changed_nor_closed() -> None:
    image = smooth()
    image.getexif()[0x0112] = 6
    image.info["note"] = "kept"
    before = image.copy()
    result = decode_image(image)
    assert result.size == (48, 64)
    assert image == before and image.info == before.info and image.getexif()[0x0112] == 6
    plain = smooth()
    result = decode_image(plain)
    result.putpixel((0, 0), (9, 9, 9))
    assert plain == smooth()


def test_decoding_twice_changes_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    once = decode_image(encoded(smooth(), "JPEG", exif=exif))
    assert once.info == {} and once.size == (48, 64)
    assert decode_image(once) == once


def test_animations_and_pages_give_the_first_frame() -> None:
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "lime", "blue")]
    for form in ("GIF", "TIFF", "PNG", "WEBP"):
        more = {"lossless": True} if form == "WEBP" else {}
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **more)
        result = decode_image(data)
        assert result.getpixel((0, 0)) == (255, 0, 0), form
        assert type(result) is Image.Image


def test_many_threads_decode_at_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    data = [encoded(Image.fromarray(noise()), form) for form in ("PNG", "BMP", "TIFF")] * 20
    with ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(result, noise()) for result in pool.map(pixels, data))


def test_heic_and_avif_are_read() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    before = dict(Image.OPEN)
    stream = io.BytesIO()
    pillow_heif.from_pillow(smooth()).save(stream, quality=95)
    assert np.abs(pixels(stream.getvalue()).astype(int) - np.asarray(smooth())).mean() < 4
    assert "HEIF" not in Image.OPEN or "HEIF" in before
    Image.init()
    if "AVIF" in Image.SAVE:
        assert np.abs(pixels(encoded(smooth(), "AVIF")).astype(int) - np.asarray(smooth())).mean() < 4


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"hevc", b"mif1", b"msf1"])
def test_heic_without_its_package_names_the_extra(brand: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    with pytest.raises(MissingExtraError, match=r"Reading HEIC images needs .*mlx-aimv2\[heif\]"):
        decode_image(struct.pack(">I", 20) + b"ftyp" + brand + b"\0\0\0\0heic" + bytes(40))


# --- orientation


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.new("RGB", (48, 32), "black")
    stored.paste((255, 255, 255), (0, 0, 16, 16))  # one bright corner, upper left as stored
    options = {"lossless": True} if form == "WEBP" else {}
    result = np.asarray(decode_image(encoded(stored, form, exif=exif, **options)))[..., 0] > 128
    corner = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}
    assert result.shape == ((32, 48) if orientation < 5 else (48, 32))
    bottom, right = corner[orientation]
    assert result[-1 if bottom else 0, -1 if right else 0]
    assert result.sum() == 256


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"]
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, about EXIF and TIFF tags
def test_broken_exif_does_not_fail_the_image(exif: bytes) -> None:
    assert decode_image(encoded(smooth(), "JPEG", exif=exif)).size == (64, 48)


def test_an_orientation_out_of_range_counts_as_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 99
    assert decode_image(encoded(smooth(), "PNG", exif=exif)).size == (64, 48)


# --- fast


def test_fast_decodes_jpeg_to_at_least_twice_the_edge() -> None:
    data = encoded(smooth(800, 1000), "JPEG")
    fast = DecodeOptions(decode="fast")
    assert decode_image(data, fast, short_edge=50).size == (125, 100)
    assert decode_image(data, fast, short_edge=51).size == (250, 200)
    assert decode_image(data, fast, short_edge=401).size == (1000, 800)
    assert decode_image(data, fast).size == (1000, 800)
    assert decode_image(data, short_edge=50).size == (1000, 800)
    assert decode_image(encoded(smooth(800, 1000), "BMP"), fast, short_edge=50).size == (1000, 800)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(smooth(800, 1000), "JPEG", exif=exif), fast, short_edge=50).size == (100, 125)
