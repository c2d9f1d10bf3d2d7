"""What `decode_image` refuses, and what it says then."""

from __future__ import annotations

import io
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
    InputError,
)
from mlx_aimv2.processing.decode import DecodeOptions, decode_image


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


def test_short_edge_is_checked() -> None:
    with pytest.raises(InputError, match="short_edge is 0"):
        decode_image(noise(), short_edge=0)


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
def test_any_bytes_are_an_image_or_an_image_error(data: bytes, signature: bytes) -> None:
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
