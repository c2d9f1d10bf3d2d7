"""Files that are no images, missing codecs, and the pixel limit of Pillow."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from helpers.encoded_images import encoded, png
from PIL import Image

from mlx_aimv2.errors import (
    BrokenImageError,
    ImageError,
)
from mlx_aimv2.processing.decode import decode_image


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


@pytest.mark.parametrize(
    ("name", "imported"), [("JPEG", False), ("PNG", False), ("WEBP", True), ("TIFF", True)]
)
def test_only_rare_formats_import_all_plugins(name: str, imported: bool) -> None:
    """Importing them takes longer than decoding a photo."""
    code = (
        "import io, sys\nfrom PIL import Image\nfrom mlx_aimv2.processing.decode import decode_image\n"
        f"data = bytes.fromhex({encoded(Image.new('RGB', (8, 8)), name).hex()!r})\n"
        "decode_image(data)\nprint('PIL.IcnsImagePlugin' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(imported)


def test_avif_without_its_plugin_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    with pytest.raises(ImageError, match=r"reading AVIF images needs Pillow 11\.3 or newer"):
        decode_image(struct.pack(">I", 20) + b"ftypavif" + bytes(40))


def test_pillows_limit_neither_warns_nor_refuses_below_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Pillow would refuse the header; here it passes, and only the missing pixels are found
        with pytest.raises(BrokenImageError, match="cut off or damaged"):
            decode_image(png(64, 64, bits=1, kind=0))
    assert caught == [] and Image.MAX_IMAGE_PIXELS == 1000
