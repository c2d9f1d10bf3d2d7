"""What `decode_image` refuses, and what it says then."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers.encoded_images import encoded, noise, png, smooth
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mlx_aimv2.errors import (
    BrokenImageError,
    ImageError,
    ImageTooLargeError,
    InputError,
)
from mlx_aimv2.processing.decode import DecodeOptions, decode_image

# --- refusals


def test_what_is_no_image_says_so(tmp_path: Path) -> None:
    beginnings = {
        b"just some text": "not an image that can be read$",
        b"%PDF-1.7": "a PDF document",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n": "a PostScript file",
        b"<svg xmlns='x'/>": "an SVG drawing",
        b"<!DOCTYPE html>": "a web page",
        b"version https://git-lfs.github.com/spec/v1": "git lfs pull",
        bytes(500): "not an image that can be read$",
    }
    path = tmp_path / "photo.jpg"
    for data, message in beginnings.items():
        path.write_bytes(data)
        with pytest.raises(BrokenImageError, match=message) as caught:
            decode_image(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_empty_files_say_so(tmp_path: Path) -> None:
    for source in (b"", io.BytesIO()):
        with pytest.raises(BrokenImageError, match="empty, 0 bytes"):
            decode_image(source)


def test_devices_are_no_files() -> None:
    with pytest.raises(ImageError, match="/dev/zero: a device, not a regular file"):
        decode_image("/dev/zero")


def test_files_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match=r"missing\.png: cannot be read: No such file") as caught:
        decode_image(tmp_path / "missing.png")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(ImageError, match=r"cannot be read"):
        decode_image(tmp_path)
    with pytest.raises(ImageError, match=r"cut off or damaged|cannot be read"):
        decode_image("a\0b.png")

    def denied(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(ImageError, match="cannot be read: Permission denied"):
        decode_image("a.png")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000"])
def test_truncated_files_are_refused(form: str) -> None:
    data = encoded(Image.fromarray(noise(60, 60)), form)
    for keep in (0.3, 0.6, 0.9):
        with pytest.raises(BrokenImageError, match="cut off or damaged"):
            decode_image(data[: int(len(data) * keep)])


def test_a_image_closed_by_its_owner_is_refused() -> None:
    image = Image.open(io.BytesIO(encoded(smooth(), "PNG")))
    image.close()
    with pytest.raises(ImageError, match="RGB image of 64x48"):
        decode_image(image)


def test_images_without_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match="5x0 has no pixels"):
        decode_image(Image.new("RGB", (5, 0)))
    with pytest.raises(BrokenImageError):
        decode_image(png(0, 5))


@pytest.mark.parametrize(
    "error", [MemoryError(), Image.DecompressionBombError("big"), KeyError("x"), OSError(5, "I/O")]
)
def test_what_pillow_raises_becomes_an_image_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: Image.Image) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "load", load)
    with pytest.raises(ImageError) as caught:
        decode_image(smooth())
    assert caught.value.__cause__ is error
    expected = {
        MemoryError: "not enough memory",
        Image.DecompressionBombError: "Pillow's own limit",
        KeyError: "damaged",
        OSError: "cannot be read: I/O",
    }
    assert expected[type(error)] in str(caught.value)


def test_other_types_are_refused() -> None:
    for source in (3, None, [b"x"], {"bytes": b""}):
        with pytest.raises(InputError, match="a path, bytes, a binary file, a Pillow image or a NumPy array"):
            decode_image(source)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="StringIO gives str when read: open it in binary mode"):
        decode_image(io.StringIO("text"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decode": "quick"}, "decode is 'quick', but has to be 'exact' or 'fast'"),
        ({"background": "whit"}, "background is 'whit', but has to be a colour name"),
        ({"background": "#ffffff80"}, "background is '#ffffff80'"),
        ({"background": "rgb(300,0,0)"}, "background is"),
        ({"background": None}, "background is None"),
        ({"max_megapixels": 0}, "max_megapixels is 0, but has to be a number greater than 0"),
        ({"max_megapixels": float("nan")}, "max_megapixels is nan"),
        ({"max_megapixels": float("inf")}, "max_megapixels is inf"),
        ({"max_megapixels": "9"}, "max_megapixels is '9'"),
        ({"max_megapixels": True}, "max_megapixels is True"),
    ],
)
def test_options_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        DecodeOptions(**fields)
    assert message in str(caught.value)


def test_short_edge_is_checked() -> None:
    with pytest.raises(InputError, match="short_edge is 0"):
        decode_image(noise(), short_edge=0)


def test_avif_without_its_plugin_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    with pytest.raises(ImageError, match=r"reading AVIF images needs Pillow 11\.3 or newer"):
        decode_image(struct.pack(">I", 20) + b"ftypavif" + bytes(40))


# --- size


def test_large_images_are_refused_before_decoding() -> None:
    message = r"1000x500 is 0\.5 megapixels, more than the 0\.4 allowed: raise max_megapixels"
    for source in (png(1000, 500), Image.new("L", (1000, 500))):
        with pytest.raises(ImageTooLargeError, match=message):
            decode_image(source, DecodeOptions(max_megapixels=0.4))
    assert decode_image(Image.new("L", (1000, 500)), DecodeOptions(max_megapixels=0.5)).size == (1000, 500)
    with pytest.raises(ImageTooLargeError, match=r"100000x100000 is 10000\.0 megapixels"):
        decode_image(png(100_000, 100_000))


def test_pillows_limit_neither_warns_nor_refuses_below_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Pillow would refuse the header; here it passes, and only the missing pixels are found
        with pytest.raises(BrokenImageError, match="cut off or damaged"):
            decode_image(png(64, 64, bits=1, kind=0))
    assert caught == [] and Image.MAX_IMAGE_PIXELS == 1000


# --- anything


SEEDS = [
    encoded(smooth(16, 24), form) for form in ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM", "ICO", "JPEG2000")
]
SEEDS += [
    encoded(smooth(16, 24).quantize(16), "GIF"),
    encoded(smooth(16, 24), "TIFF", compression="tiff_lzw"),
]
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SMALL = DecodeOptions(max_megapixels=1)


def only_image_errors(data: bytes) -> None:
    try:
        assert decode_image(data, SMALL).mode == "RGB"
    except ImageError as error:
        assert "\n" not in str(error) and str(error).startswith(f"image of {len(data)} bytes: ")


@FUZZ
@given(st.binary(max_size=200), st.sampled_from([b"", *(seed[:16] for seed in SEEDS)]))
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, about EXIF and TIFF tags
def test_any_bytes_are_a_image_or_an_image_error(data: bytes, signature: bytes) -> None:
    only_image_errors(signature + data)


@FUZZ
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
    st.data(),
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, about EXIF and TIFF tags
def test_mutated_images_are_images_or_image_errors(
    seed: bytes, changes: list[tuple[int, int]], data: st.DataObject
) -> None:
    mutated = bytearray(seed)
    for at, value in changes:
        mutated[at % len(mutated)] = value
    only_image_errors(
        bytes(mutated[: data.draw(st.integers(0, len(mutated)))] if data.draw(st.booleans()) else mutated)
    )
