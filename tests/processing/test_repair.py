"""Files that lack their end or have odd metadata: every pixel that is there is shown, and loss is never silent."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from helpers.encoded_images import encoded, noise, pixels, smooth
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from mlx_aimv2.errors import BrokenImageError, ImageError
from mlx_aimv2.processing.decode import DecodeOptions, decode_image
from mlx_aimv2.processing.repair import ended_jpegs, without_metadata

ALLOWED = DecodeOptions(allow_truncated=True)
HINT = r"cut off or damaged \(.*\): allow_truncated=True takes the pixels that are there"
KINDS: list[dict[str, Any]] = [
    {},
    {"quality": 100, "subsampling": 0},
    {"progressive": True},
    {"restart_marker_rows": 1},
    {"restart_marker_blocks": 3},
    {"progressive": True, "restart_marker_blocks": 2},
    {"exif": b"Exif\0\0" + b"\xff\xd9" * 50},
]


def photo(size: int = 61) -> Image.Image:
    return Image.fromarray(noise(size, size)).resize((size, size), Image.Resampling.BICUBIC, (0, 0, 20, 20))


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_jpeg_without_its_end_marker_has_all_of_its_pixels(kind: dict[str, Any], gray: bool) -> None:
    data = encoded(photo().convert("L" if gray else "RGB"), "JPEG", **kind)
    for cut in (1, 2):
        assert np.array_equal(pixels(data[:-cut]), pixels(data))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_a_pillow_image_that_was_only_opened_is_repaired_as_its_file_is() -> None:
    data = encoded(photo(), "JPEG")
    assert np.array_equal(pixels(opened(data[:-2])), pixels(data))
    with pytest.raises(BrokenImageError, match=HINT):
        decode_image(opened(data[:-50]))
    with pytest.warns(UserWarning, match="some of its pixels are missing"):
        assert decode_image(opened(data[:-50]), ALLOWED).size == (61, 61)
    reduced = opened(encoded(photo(640), "JPEG")[:-2])
    reduced.draft("RGB", (80, 80))
    with pytest.raises(BrokenImageError):  # its own size is not that of the file
        decode_image(reduced)


def test_a_jpeg_without_its_end_may_be_reduced_while_it_is_decoded() -> None:
    data = encoded(photo(640), "JPEG")
    fast = DecodeOptions(decode="fast")
    assert np.array_equal(
        np.asarray(decode_image(data[:-2], fast, 40)), np.asarray(decode_image(data, fast, 40))
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_jpeg_that_lacks_pixels_is_refused_wherever_it_is_cut(kind: dict[str, Any]) -> None:
    data = encoded(photo(), "JPEG", **kind)
    whole = pixels(data)
    ends = range(data.rindex(b"\xff\xda") + 20, len(data) - 2)
    for keep in {*ends[::29], *ends[-12:]}:
        try:
            shown = pixels(data[:keep])
        except BrokenImageError:
            continue
        # the bits that are cut off may change nothing that can be seen
        assert np.abs(shown.astype(int) - whole).max() <= 1, keep


def test_zeros_in_place_of_the_rest_are_no_pixels() -> None:
    data = encoded(photo(), "JPEG")
    for keep in (len(data) // 2, len(data) - 30):
        with pytest.raises(BrokenImageError, match=HINT):
            decode_image(data[:keep] + bytes(len(data)))
        with pytest.warns(UserWarning, match="some of its pixels are missing"):
            pixels(data[:keep] + bytes(len(data)), ALLOWED)
    assert np.array_equal(pixels(data + bytes(4096)), pixels(data))
    assert np.array_equal(pixels(data + b"a video" + bytes(4096)), pixels(data))
    assert np.array_equal(pixels(data[:-2] + bytes(4096)), pixels(data))


def test_a_jpeg_cut_between_restart_intervals_is_refused() -> None:
    data = encoded(photo(), "JPEG", restart_marker_rows=1)
    for number in range(3):
        at = data.index(bytes((0xFF, 0xD0 + number)))
        with pytest.raises(BrokenImageError, match=HINT):
            decode_image(data[:at])


def test_a_progressive_jpeg_that_lacks_whole_scans_is_refused() -> None:
    data = encoded(photo(), "JPEG", progressive=True)
    starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    assert len(starts) > 5
    for start in starts[1:]:
        with pytest.raises(BrokenImageError, match=HINT):
            decode_image(data[:start])


def test_what_is_there_of_a_jpeg_is_taken_on_request() -> None:
    data = encoded(photo(), "JPEG", quality=95)
    half = data[: len(data) * 2 // 3]
    with pytest.warns(UserWarning, match="some of its pixels are missing"):
        shown = pixels(half, ALLOWED)
    assert shown.shape == (61, 61, 3)
    assert np.array_equal(shown[:16], pixels(data)[:16]) and not np.array_equal(shown, pixels(data))


@pytest.mark.parametrize("form", ["PNG", "BMP", "PPM", "GIF", "QOI", "SGI", "TIFF"])
def test_what_is_there_of_other_formats_is_taken_on_request(form: str) -> None:
    data = encoded(photo(), form, **({"interlace": 0} if form == "GIF" else {}))
    part = data[: len(data) * 3 // 4]
    with pytest.raises(BrokenImageError, match="cut off or damaged"):
        decode_image(part)
    if form in ("PNG", "BMP", "PPM", "GIF"):
        with pytest.warns(UserWarning, match="some of its pixels are missing"):
            shown = pixels(part, ALLOWED)
        rows = slice(-20, None) if form == "BMP" else slice(0, 20)  # which begins at the bottom
        assert np.array_equal(shown[rows], pixels(data)[rows])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_nothing_at_all_is_refused_on_request_too() -> None:
    for form in ("JPEG", "PNG"):
        data = encoded(photo(), form)
        for keep in (4, 20, 45):
            with pytest.raises(ImageError):
                decode_image(data[:keep], ALLOWED)


def test_whole_files_are_taken_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for form in ("JPEG", "PNG", "GIF", "BMP"):
            data = encoded(photo(), form)
            assert np.array_equal(pixels(data, ALLOWED), pixels(data))


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP"])
def test_other_formats_may_lack_their_last_bytes(form: str) -> None:
    data = encoded(photo(), form)
    cut = {"PNG": 16, "GIF": 1, "BMP": 2 if (61 * 3) % 4 == 2 else 1}[form]
    assert np.array_equal(pixels(data[:-cut]), pixels(data))


def test_threads_do_not_share_the_wish_for_truncated_images() -> None:
    data = encoded(photo(), "PNG")
    part = data[: len(data) * 3 // 4]

    def refused(_: int) -> bool:
        try:
            pixels(part)
        except BrokenImageError:
            return True
        return False

    with warnings.catch_warnings(), ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("ignore")
        allowed = [pool.submit(pixels, part, ALLOWED) for _ in range(40)]
        assert all(pool.map(refused, range(40)))
        assert all(future.result().shape == (61, 61, 3) for future in allowed)


def chunk(name: bytes, content: bytes, crc: int | None = None) -> bytes:
    code = zlib.crc32(name + content) if crc is None else crc
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", code)


LARGE = zlib.compress(bytes(5_000_000))
CHUNKS = {
    "text": chunk(b"zTXt", b"k\0\0" + LARGE),
    "international text": chunk(b"iTXt", b"k\0\1\0\0\0" + LARGE),
    "texts of 70 MB": chunk(b"tEXt", b"k\0" + b"a" * 1_000_000) * 70,
    "a large profile": chunk(b"iCCP", b"k\0\0" + LARGE),
    "a damaged profile": chunk(b"iCCP", b"k\0\0abc"),
    "a checksum": chunk(b"tEXt", b"k\0abc", crc=1),
    "a checksum of size": chunk(b"pHYs", bytes(9), crc=1),
    "a short chunk": chunk(b"pHYs", b"a"),
    "a short gamma": chunk(b"gAMA", b"a"),
    "short primaries": chunk(b"cHRM", b"a"),
    "an empty sRGB": chunk(b"sRGB", b""),
    "an unknown compression": chunk(b"zTXt", b"k\0\5abc"),
    "a short animation": chunk(b"acTL", b"a"),
    "a name of no letters": chunk(b"\1\2\3\4", b"a"),
    "a large private chunk": chunk(b"prVt", bytes(5_000_000)),
}


@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind them"])
@pytest.mark.parametrize("name", CHUNKS)
def test_metadata_of_a_png_costs_no_pixels(name: str, behind: bool) -> None:
    data = encoded(smooth(), "PNG")
    at = len(data) - 12 if behind else 33
    assert np.array_equal(pixels(data[:at] + CHUNKS[name] + data[at:]), np.asarray(smooth()))


def test_what_has_to_do_with_pixels_stays() -> None:
    image = smooth().convert("P")
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, "PNG", transparency=3, exif=exif)
    odd = data[:33] + CHUNKS["text"] + data[33:]
    assert np.array_equal(pixels(odd), pixels(data))
    assert pixels(data).shape == (64, 48, 3)  # turned


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


SEGMENTS = {
    "a short JFIF": segment(0xE0, b"JFIF\0"),
    "a short Adobe": segment(0xEE, b"Adobe"),
    "an empty profile": segment(0xE2, b"ICC_PROFILE\0"),
    "a short Photoshop": segment(0xED, b"Photoshop 3.0\0" + b"8BIM"),
    "6 MB of XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"x" * 60_000) * 100,
    "comments": segment(0xFE, b"c" * 60_000) * 40,
    "fill bytes": b"\xff\xff\xff",
    "an EXIF that is empty": segment(0xE1, b"Exif\0\0"),
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_metadata_of_a_jpeg_costs_no_pixels(name: str) -> None:
    for image in (smooth(), smooth().convert("CMYK")):
        data = encoded(image, "JPEG")
        assert np.array_equal(pixels(data[:2] + SEGMENTS[name] + data[2:]), pixels(data))


def test_orientation_stays_beside_odd_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(smooth(), "JPEG", exif=exif)
    assert np.array_equal(pixels(data[:2] + SEGMENTS["a short Adobe"] + data[2:]), pixels(data))
    assert pixels(data).shape == (64, 48, 3)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_bytes_are_repaired_or_not_but_never_more(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["JPEG", "PNG"]))
    whole = encoded(smooth(), form)
    keep = data.draw(st.integers(3, len(whole)))
    at = data.draw(st.integers(2, keep))
    odd = whole[:at] + data.draw(st.binary(max_size=40)) + whole[at:keep]
    without_metadata(odd)
    ended_jpegs(odd)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            decode_image(odd, ALLOWED)
        except ImageError as error:
            assert "\n" not in str(error)
