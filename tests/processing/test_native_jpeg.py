"""JPEGs decoded by mlx-data: the bits of Pillow, what is left to Pillow, and files that are cut off."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from helpers.encoded_images import encoded, noise, smooth
from helpers.icc import matrix_of, rgb_profile
from helpers.programs import run_program
from PIL import Image

from mlx_aimv2.errors import BrokenImageError, ImageError, ImageTooLargeError
from mlx_aimv2.processing.decode import DecodeOptions, decode_image
from mlx_aimv2.processing.formats import identify
from mlx_aimv2.processing.image import ImageProcessor, ImageProcessorConfig
from mlx_aimv2.processing.native_jpeg import native_pixels

pytest.importorskip("mlx.data", reason="mlx-data has no package for this machine")
PROFILE = rgb_profile(matrix_of("Display P3"), 2.2)
NATIVE = DecodeOptions(decode="native")
SOF = (0xC0, 0xC2)  # the markers of a frame: baseline and progressive


def is_native(data: bytes) -> bool:
    return native_pixels(io.BytesIO(data), identify(io.BytesIO(data))) is not None


def same(data: bytes, **options: Any) -> None:
    exact = decode_image(data, DecodeOptions(**options))
    native = decode_image(data, DecodeOptions(decode="native", **options))
    assert (native.mode, native.info) == ("RGB", {})
    np.testing.assert_array_equal(np.asarray(native), np.asarray(exact))


def sampled(data: bytes, factors: int) -> bytes:
    """A JPEG whose first component claims other sampling factors."""
    changed, place = bytearray(data), 2
    while data[place + 1] not in SOF:
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    changed[place + 11] = factors
    return bytes(changed)


@pytest.mark.parametrize("size", [(1, 1), (17, 9), (64, 48), (101, 67)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("more", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"quality": 5}])
def test_the_bits_are_those_of_pillow(size: tuple[int, int], subsampling: int, more: dict[str, Any]) -> None:
    image = Image.fromarray(noise(64, 64)).resize(size)
    data = encoded(image, "JPEG", subsampling=subsampling, **more)
    assert is_native(data)
    same(data)


@pytest.mark.parametrize("factors", [0x12, 0x41, 0x14, 0x31])
def test_rare_sampling(factors: int) -> None:
    data = sampled(encoded(smooth(64, 64), "JPEG", subsampling=0), factors)
    assert is_native(data)
    same(data)


@pytest.mark.parametrize("form", ["grey", "rgb", "profile", "comment"])
def test_other_kinds(form: str) -> None:
    image = smooth(45, 61)
    data = {
        "grey": encoded(image.convert("L"), "JPEG"),
        "rgb": encoded(image, "JPEG", keep_rgb=True),
        "profile": encoded(image, "JPEG", icc_profile=PROFILE),
        "comment": encoded(image, "JPEG", comment=b"\xff\xd9"),
    }[form]
    assert is_native(data)
    same(data)
    same(data, color_managed=True)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(smooth(45, 61), "JPEG", exif=exif)
    assert is_native(data)
    same(data)


def mpo() -> bytes:
    return encoded(smooth(), "MPO", save_all=True, append_images=[smooth()])


@pytest.mark.parametrize(
    "data",
    [
        encoded(smooth().convert("CMYK"), "JPEG"),
        mpo(),
        encoded(smooth(), "PNG"),
        encoded(smooth(), "JPEG") + b"trailer",
        encoded(smooth(), "JPEG")[:-2],
    ],
    ids=["cmyk", "mpo", "png", "trailer", "no end marker"],
)
def test_what_is_left_to_pillow(data: bytes) -> None:
    assert not is_native(data)
    same(data)


def test_broken_and_large_files_are_refused_as_always() -> None:
    data = encoded(smooth(), "JPEG")
    with pytest.raises(BrokenImageError, match="cut off or damaged"):
        decode_image(data[: len(data) // 2], NATIVE)
    with pytest.raises(ImageTooLargeError, match=r"more than the 0\.001 allowed"):
        decode_image(data, DecodeOptions(decode="native", max_megapixels=0.001))
    with pytest.raises(ImageError, match=r"nothing\.jpg: cannot be read"):
        decode_image("nothing.jpg", NATIVE)


PREFIXES = """
import io, sys, warnings
import numpy as np
from PIL import Image
from mlx_aimv2.errors import ImageError
from mlx_aimv2.processing.decode import DecodeOptions, decode_image

warnings.simplefilter("ignore")
x = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
thumbnail, stream = io.BytesIO(), io.BytesIO()
Image.fromarray(x[:8, :8]).save(thumbnail, "JPEG")
exif = b"Exif\\0\\0II*\\0\\x08\\0\\0\\0\\0\\0" + thumbnail.getvalue()  # has an end marker of its own
Image.fromarray(x).save(stream, "JPEG", progressive=sys.argv[1] == "progressive", exif=exif, quality=30)
data, counts = stream.getvalue(), [0, 0]

def result(data, decode):
    try:
        return np.asarray(decode_image(data, DecodeOptions(decode=decode))).tobytes()
    except ImageError as error:
        return str(error)

for length in range(len(data) + 1):
    for end in (b"", b"\\xff\\xd9"):
        prefix = data[:length] + end
        exact, native = result(prefix, "exact"), result(prefix, "native")
        assert exact == native, (length, end)
        counts[isinstance(native, bytes)] += 1
print(*counts)
"""


@pytest.mark.parametrize("form", ["baseline", "progressive"])
def test_no_prefix_of_a_file_hangs_the_decoder(form: str) -> None:
    done = run_program(PREFIXES, form)
    assert done.returncode == 0, done.stderr[-500:]
    refused, decoded = map(int, done.stdout.split())
    assert refused > 500
    assert decoded > 100


def test_a_segment_that_claims_more_than_the_file_has_hangs_nothing() -> None:
    program = """
import io, sys
from PIL import Image
from mlx_aimv2.processing.native_jpeg import native_pixels

data = sys.stdin.buffer.read()
image = Image.open(io.BytesIO(data))
assert native_pixels(io.BytesIO(data), image) is not None
scan = data.rindex(b"\\xff\\xda")
for segment in ("ffe1ffff", "ffe1", "ffc4ffff", "ffda000c03", "ffdd00"):
    longer = data[:scan] + bytes.fromhex(segment + "ffd9")
    print(native_pixels(io.BytesIO(longer), image))
"""
    data = encoded(smooth(), "JPEG", progressive=True)
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()[-500:]
    assert done.stdout.split() == [b"None"] * 5


def test_pixels_of_a_model_are_the_same() -> None:
    data = encoded(Image.fromarray(noise(90, 131)), "JPEG")
    for config in (ImageProcessorConfig.default(28), ImageProcessorConfig.default(224, native=True)):
        exact, native = (
            ImageProcessor(config, decode=DecodeOptions(decode=name)) for name in ("exact", "native")
        )
        np.testing.assert_array_equal(native(data), exact(data))
        assert native.settings() == exact.settings()  # vectors of both can be compared
