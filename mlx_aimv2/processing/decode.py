"""Decode any image input to RGB: apply the EXIF orientation, read damaged files, reduce large JPEGs while decoding.

The input is a path, bytes, an open file, a Pillow image or an array. Every failure is an `ImageError` whose message
begins with the name of the image.
"""

from __future__ import annotations

import io
import os
import struct
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.PngImagePlugin import PngImageFile

from ..errors import Advice, Aimv2Error, BrokenImageError, ImageError, ImageTooLargeError, InputError
from . import heif
from .color_profiles import to_srgb
from .formats import identify, reason
from .jxl import LOOK, is_jxl, jxl_size
from .native_jpeg import native_pixels, with_metadata
from .options import DecodeOptions
from .raw import is_raw, open_raw
from .repair import ended_jpegs, ends_in_zeros, without_metadata
from .rgb import array_to_rgb, to_rgb
from .significant_bits import significant_bits, unscale_colors
from .source_image import SourceImage
from .tiff import is_tiff, open_tiff, through_libtiff
from .tiff_samples import lift_limit

__all__ = ["DecodeOptions", "Decoded", "ImageInput", "decode_image", "decode_reduced"]

ImageInput: TypeAlias = (
    "str | os.PathLike[str] | bytes | BinaryIO | Image.Image | np.ndarray[Any, Any] | SourceImage"
)

UPRIGHT = {  # EXIF orientation -> the transposition that undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height
FLIPPED_X = (2, 3, 6, 7)  # orientations that store the right edge first
FLIPPED_Y = (3, 4, 7, 8)  # orientations that store the lower edge first


@dataclass(frozen=True)
class Decoded:
    """A decoded image, which a fast JPEG decoder may have reduced by 2, 4 or 8.

    Attributes:
        rgb: Upright: an image in mode RGB, or an array (H, W, 3) uint8.
        size: (width, height) in pixels before the reduction.
        box: The part of `rgb` that the file covers, (left, top, right, bottom) in pixels. A reduced JPEG is rounded
            up to whole pixels, so its last column and row may reach beyond the box.
    """

    rgb: Image.Image | NDArray[np.uint8]
    size: tuple[int, int]
    box: tuple[float, float, float, float]

    @classmethod
    def whole(cls, rgb: Image.Image | NDArray[np.uint8]) -> Decoded:
        """A decoded image that was not reduced."""
        width, height = rgb.shape[1::-1] if isinstance(rgb, np.ndarray) else rgb.size
        return cls(rgb, (width, height), (0, 0, width, height))

    @property
    def image(self) -> Image.Image:
        """The image in mode RGB."""
        return Image.fromarray(self.rgb) if isinstance(self.rgb, np.ndarray) else self.rgb

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The image as an array (H, W, 3)."""
        return np.asarray(self.rgb)


def decode_image(
    source: ImageInput, options: DecodeOptions | None = None, short_edge: int | None = None
) -> Image.Image:
    """Decode a path, bytes, a binary file, a Pillow image or an array to an upright image in mode RGB.

    Applies the EXIF orientation, composites transparent pixels over the background, and scales deep pixels to 8 bits
    (see `to_rgb`). Of several frames or pages it takes the first (of a Pillow image, the current one).

    Args:
        source: A binary file is read from its position to its end and stays open. A Pillow image is neither
            changed nor closed. Arrays are (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8 or float in 0..1.
        options: Options for decoding; the defaults of `DecodeOptions` if None.
        short_edge: The short edge in pixels that the image is resized to afterwards. With decode="fast", a JPEG is
            decoded to a short edge of at least twice that; None decodes exactly.

    Returns:
        A new image, in memory, with an empty `info`: decoding it again changes nothing.

    Raises:
        InputError: `source` has another type, or an array another shape, dtype or range.
        ImageError: The file cannot be read, or no pixel holds a number.
        BrokenImageError: The file is not an image, is cut off, or is damaged.
        ImageTooLargeError: The image has more pixels than `max_megapixels`.
        MissingExtraError: The image is HEIC, JPEG XL or camera raw, and the package that reads it is not installed.
    """
    return decode_reduced(source, options or DecodeOptions(), short_edge).image


def decode_reduced(source: ImageInput, options: DecodeOptions, short_edge: int | None) -> Decoded:
    """Decode as `decode_image` does, and keep the size before a reduction."""
    if short_edge is not None and (isinstance(short_edge, bool) or short_edge < 1):
        raise InputError(f"short_edge is {short_edge!r}, but has to be at least 1")
    if isinstance(source, np.ndarray):
        return Decoded.whole(array_to_rgb(source, options.background_color))
    label = _label(source)
    with _failures_named(label):
        while isinstance(source, SourceImage):
            source = source.open_for(options, short_edge)
        if isinstance(source, Decoded):
            return source
        if isinstance(source, np.ndarray):
            return Decoded.whole(array_to_rgb(source, options.background_color))
        if isinstance(source, Image.Image):
            options.check_size(source.size)
            return _decode_image(source, options, label)
        with _opened(source) as stream:
            if is_raw(stream):
                return _decode_raw(stream, options, short_edge, label)
            try:
                return _decode_stream(stream, options, short_edge, label)
            except Exception as error:
                if not _may_be_repaired(error):
                    raise
                stream.seek(0)
                return _decode_repaired(stream.read(), options, short_edge, label, error)


def _decode_image(image: Image.Image, options: DecodeOptions, label: str) -> Decoded:
    """Decode a Pillow image; one that was just opened reads its pixels from its file here."""
    try:
        return Decoded.whole(_upright_rgb(image, options, label, ours=False)[0])
    except Exception as error:
        file, size = getattr(image, "fp", None), image.size
        if file is None or not _may_be_repaired(error):
            raise
        file.seek(0)
        copy = Image.open(io.BytesIO(data := file.read()))
        if copy.size != size or image.tell():  # reduced with `draft`, or another frame
            raise
        return _decode_repaired(data, options, None, label, error)


def _decode_raw(stream: IO[bytes], options: DecodeOptions, short_edge: int | None, label: str) -> Decoded:
    """Decode a camera raw file; with decode="fast", its preview or half of its size may be enough."""
    least = 2 * short_edge if options.decode == "fast" and short_edge is not None else None
    with open_raw(stream, options) as raw:
        rgb: Image.Image | None = None
        with suppress(Exception):  # a damaged preview
            if least is not None and (preview := raw.preview(least)) is not None:
                rgb, _ = _upright_rgb(preview, options, label, ours=True)
        rgb = rgb or raw.develop(least)
        size = raw.size if least is not None else rgb.size
        return Decoded(rgb, size, (0, 0, *rgb.size))


# Pillow's `load` with LOAD_TRUNCATED_IMAGES. Pillow's own switch is a global of its module, for the whole
# process; this copy of the function has another one.
_load_truncated = types.FunctionType(
    ImageFile.ImageFile.load.__code__, {**vars(ImageFile), "LOAD_TRUNCATED_IMAGES": True}
)


def _may_be_repaired(error: Exception) -> bool:
    if isinstance(error, Aimv2Error):
        return isinstance(error, BrokenImageError)
    unreadable = isinstance(error, OSError) and error.errno is not None
    return not unreadable and not isinstance(error, (MemoryError, Image.DecompressionBombError))


def _decode_repaired(
    data: bytes, options: DecodeOptions, short_edge: int | None, label: str, error: Exception
) -> Decoded:
    """Decode a file that failed with ``error``: without metadata, with an end marker, or as far as possible."""

    def attempt(copy: bytes, *, cut_off: bool = False) -> Decoded | None:
        try:
            return _decode_stream(io.BytesIO(copy), options, short_edge, label, cut_off=cut_off)
        except Exception:  # noqa: BLE001 - the first error is raised
            return None

    data = without_metadata(data) or data
    if (decoded := attempt(data)) is not None:
        return decoded
    if (copies := ended_jpegs(data)) is not None:
        decoded, others = attempt(copies[0]), [attempt(copy) for copy in copies[1]]
        if decoded and others and all(other and other.image == decoded.image for other in others):
            return decoded
    else:
        decoded = attempt(data, cut_off=True)
    if decoded is None or decoded.image.getbbox() is None:  # no pixels, or only black ones
        raise error
    if not options.allow_truncated:
        advice = Advice("{} takes the pixels that are there", "allow_truncated", True)
        cause = str(error) if isinstance(error, BrokenImageError) else f"cut off or damaged ({reason(error)})"
        raise BrokenImageError(cause, advice) from error
    warnings.warn(f"{label}: cut off or damaged: some of its pixels are missing", stacklevel=2)
    return decoded


def _decode_stream(
    stream: IO[bytes], options: DecodeOptions, short_edge: int | None, label: str, *, cut_off: bool = False
) -> Decoded:
    image: Image.Image | None = open_tiff(stream, options) if is_tiff(stream) else None
    stream.seek(0)
    if is_jxl(stream.read(LOOK)):  # its plugin decodes the pixels while it opens a file
        options.check_size(jxl_size(stream))
    image = image or identify(stream)
    width, height = image.size
    options.check_size(image.size)
    is_jpeg = image.format in ("JPEG", "MPO")
    if is_jpeg and ends_in_zeros(stream):  # the decoder would take zeros for pixels
        raise BrokenImageError("cut off or damaged (the file ends in zeros)")
    drafted = None
    if options.decode == "fast" and short_edge is not None and is_jpeg:
        drafted = image.draft("RGB", (2 * short_edge, 2 * short_edge))
    elif options.decode == "fast" and short_edge is not None and image.format == "HEIF":
        smaller = heif.decode_smaller(image, stream, 2 * short_edge, managed=options.manages_colors)
        if smaller is not None:
            rgb, _ = _upright_rgb(smaller, options, label, ours=True)
            return Decoded(rgb, (width, height), (0, 0, *rgb.size))
    if isinstance(image, PngImageFile) and (bits := significant_bits(stream)) is not None:
        image.info["significant_bits"] = bits
        if image.mode in ("RGB", "RGBA"):
            unscale_colors(image, cast(PngImageFile, identify(stream)), bits)
    if cut_off and isinstance(image, ImageFile.ImageFile):
        _load_truncated(image)
    if options.decode == "native" and not cut_off and (array := native_pixels(stream, image)) is not None:
        if not options.manages_colors and _orientation(image) not in UPRIGHT:
            return Decoded.whole(array)
        return Decoded.whole(_upright_rgb(with_metadata(array, image), options, label, ours=True)[0])
    rgb, orientation = _upright_rgb(image, options, label, ours=True)
    if drafted is None:
        return Decoded.whole(rgb)
    _, _, right, bottom = drafted[1]
    spare_x, spare_y = image.width - right, image.height - bottom  # less than a pixel each
    if orientation in SIDEWAYS:
        width, height, spare_x, spare_y = height, width, spare_y, spare_x
    left, top = spare_x * (orientation in FLIPPED_X), spare_y * (orientation in FLIPPED_Y)
    box = (left, top, left + rgb.width - spare_x, top + rgb.height - spare_y)
    return Decoded(rgb, (width, height), box)


def _label(source: object) -> str:
    """The name of a source in messages."""
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    if isinstance(source, SourceImage):
        return source.id
    if isinstance(source, bytes):
        return f"image of {len(source)} bytes"
    if isinstance(source, Image.Image):
        return f"{source.mode} image of {source.width}x{source.height}"
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        return name if isinstance(name, str) else type(source).__name__
    accepted = "a path, bytes, a binary file, a Pillow image or a NumPy array"
    raise InputError(f"got {type(source).__name__}, but an image has to be {accepted}")


@contextmanager
def _failures_named(label: str) -> Iterator[None]:
    """Turn every exception of reading and decoding into an ImageError that names the image."""
    try:
        yield
    except ImageError as error:
        raise error.at(label) from error.__cause__
    except Aimv2Error:
        raise
    except MemoryError as error:
        raise ImageError(f"{label}: not enough memory to decode it") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"{label}: beyond Pillow's own limit ({reason(error)})") from error
    # Pillow's plugins raise anything on damaged bytes: ValueError, SyntaxError, KeyError, struct.error, ...
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise ImageError(f"{label}: cannot be read: {error.strerror}") from error
        if isinstance(error, struct.error):  # its message describes Python's buffers
            raise BrokenImageError(f"{label}: cut off or damaged") from error
        raise BrokenImageError(f"{label}: cut off or damaged ({reason(error)})") from error


@contextmanager
def _opened(source: str | os.PathLike[str] | bytes | BinaryIO) -> Iterator[IO[bytes]]:
    """Open a source as a seekable stream; a file that the caller opened stays open."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_fifo():  # opening a pipe waits for a writer
            raise ImageError(f"{_label(source)}: a named pipe, not a regular file")
        if path.is_char_device():  # some devices never end
            raise ImageError(f"{_label(source)}: a device, not a regular file")
        with path.open("rb") as stream:
            yield stream if stream.seekable() else io.BytesIO(stream.read())
    else:
        data = source.read()
        if not isinstance(data, bytes):
            raise InputError(
                f"{_label(source)} gives {type(data).__name__} when read: open it in binary mode, 'rb'"
            )
        yield io.BytesIO(data)


def _upright_rgb(
    image: Image.Image, options: DecodeOptions, label: str, *, ours: bool
) -> tuple[Image.Image, int]:
    """The image in mode RGB with its EXIF orientation applied, and that orientation.

    The result may be `image` itself only if it is `ours`: not the caller's.
    """
    if isinstance(image, ImageFile.ImageFile) and image.format == "TIFF" and image.tile:
        through_libtiff(image)
        lift_limit(image)
    image.load()
    # after loading: PNG may store EXIF behind the pixels, and Pillow transposes TIFF while it loads
    orientation = _orientation(image)
    colors = to_srgb(image, label) if options.manages_colors else image
    rgb = to_rgb(colors, options.background_color)
    if orientation in UPRIGHT:
        rgb = rgb.transpose(UPRIGHT[orientation])
    elif rgb is image and (not ours or getattr(image, "is_animated", False)):
        rgb = rgb.copy()
    rgb.info = {}
    return rgb, orientation


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) if it is missing or damaged."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF raises anything
        return 1
    return value if isinstance(value, int) else 1
