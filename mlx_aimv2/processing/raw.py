"""Camera raw files, through the package rawpy: the embedded preview, or the developed image.

The content tells a raw file, not its name alone: many are TIFF files whose first page is a tiny thumbnail.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from ..errors import BrokenImageError, ImageError, ImageTooLargeError
from .formats import identify
from .optional_formats import RAW
from .options import DecodeOptions

SIGNATURES = (  # (offset, bytes) of raw formats that are no TIFF, or a TIFF of their own
    (0, b"FUJIFILMCCD-RAW"),
    (0, b"IIRO"),  # Olympus
    (0, b"IIRS"),
    (0, b"MMOR"),
    (0, b"IIU\0"),  # Panasonic
    (0, b"FOVb"),  # Sigma
    (0, b"\0MRM"),  # Minolta
    (4, b"ftypcrx "),  # Canon
    (6, b"HEAPCCDR"),
    (8, b"CR\2"),
)
TIFFS = {b"II*\0": "<", b"MM\0*": ">"}
PHOTOMETRIC, SUB_IFDS, DNG_VERSION = 262, 330, 50706
SENSOR_DATA = (32803, 34892)  # values of PhotometricInterpretation: a colour filter array, linear raw
MOST_PAGES, MOST_ENTRIES = 16, 1024  # that are searched for sensor data
ORIENTATIONS = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}  # LibRaw's flip -> EXIF orientation
SIDEWAYS = (5, 6, 7, 8)
SAME_ASPECT = 0.02  # a preview may be cropped by as much
SRGB_CURVE = (2.4, 12.92)  # power and slope


def is_raw(stream: IO[bytes]) -> bool:
    """Whether a seekable stream holds a camera raw file; rewinds the stream."""
    stream.seek(0)
    head = stream.read(32)
    try:
        if any(head.startswith(mark, offset) for offset, mark in SIGNATURES):
            return True
        return head[:4] in TIFFS and (_has_raw_name(stream) or _has_sensor_data(stream, TIFFS[head[:4]]))
    finally:
        stream.seek(0)


def _has_raw_name(stream: IO[bytes]) -> bool:
    name = getattr(stream, "name", None)
    return isinstance(name, (str, os.PathLike)) and Path(name).suffix.lower() in RAW.extensions


def _has_sensor_data(stream: IO[bytes], order: str) -> bool:
    """Whether a page of a TIFF file is a DNG or holds the data of a sensor."""
    stream.seek(4)
    waiting, seen = [stream.read(4)], 0
    while waiting and seen < MOST_PAGES:
        seen += 1
        try:
            (start,) = struct.unpack(f"{order}L", waiting.pop(0))
            stream.seek(start)
            (count,) = struct.unpack(f"{order}H", stream.read(2))
            entries = stream.read(12 * min(count, MOST_ENTRIES))
            following = stream.read(4)
        except struct.error:  # cut off
            continue
        for at in range(0, len(entries) - 11, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHL", entries, at)
            value = entries[at + 8 : at + 12]
            if tag == DNG_VERSION:
                return True
            if tag == PHOTOMETRIC and struct.unpack(f"{order}HH", value)[0] in SENSOR_DATA and kind == 3:
                return True
            if tag == SUB_IFDS and number == 1:
                waiting.append(value)
            elif tag == SUB_IFDS:
                stream.seek(*struct.unpack(f"{order}L", value))
                offsets = stream.read(4 * min(number, MOST_PAGES))
                waiting += [offsets[k : k + 4] for k in range(0, len(offsets), 4)]
        if any(following):
            waiting.append(following)
    return False


@dataclass(frozen=True)
class RawFile:
    """An opened raw file.

    Attributes:
        size: (width, height) in pixels of the upright image.
        orientation: of the sensor, as in EXIF.
    """

    size: tuple[int, int]
    orientation: int
    _file: Any
    _options: DecodeOptions

    def preview(self, least: int) -> Image.Image | None:
        """The embedded preview, not loaded, with its orientation in its EXIF.

        Args:
            least: the least short edge in pixels.

        Returns:
            None if there is no preview of that size, or it shows another part than the raw image.
        """
        import rawpy

        try:
            thumbnail = self._file.extract_thumb()
            if thumbnail.format is rawpy.ThumbFormat.JPEG:
                image: Image.Image = identify(io.BytesIO(thumbnail.data))
            else:
                image = _image(thumbnail.data)
            self._options.check_size(image.size)
        except (rawpy.LibRawError, rawpy.NotSupportedError, NotImplementedError, ImageError):
            return None  # none, or not readable
        if min(image.size) < least or not self._turn(image):
            return None
        image.draft("RGB", (least, least))
        return image

    def _turn(self, image: Image.Image) -> bool:
        """Set the orientation of a preview; whether it then looks like the raw image.

        LibRaw gives a preview without EXIF that of the raw file. Some cameras turn its pixels all the same.
        """
        exif = image.getexif()
        for orientation in (exif.get(ExifTags.Base.Orientation, self.orientation), 1):
            width, height = image.size[::-1] if orientation in SIDEWAYS else image.size
            if abs(width * self.size[1] / (height * self.size[0]) - 1) <= SAME_ASPECT:
                exif[ExifTags.Base.Orientation] = orientation
                return True
        return False

    def develop(self, least: int | None) -> Image.Image:
        """Develop the upright image in sRGB, with the white balance of the camera.

        Args:
            least: the least short edge in pixels; half the size is enough for it. None develops the full size.

        Raises:
            BrokenImageError: The file is cut off or damaged.
        """
        import rawpy

        is_square = self._file.sizes.pixel_aspect == 1
        half = least is not None and is_square and min(self.size) // 2 >= least
        with _readable():
            pixels = self._file.postprocess(
                use_camera_wb=True,
                half_size=half,
                output_color=rawpy.ColorSpace.sRGB,
                output_bps=8,
                gamma=SRGB_CURVE,
            )
        return _image(pixels).convert("RGB")


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    """The image of an array (H, W, 1), of a sensor without colours, or (H, W, 3)."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


@contextmanager
def open_raw(stream: IO[bytes], options: DecodeOptions) -> Iterator[RawFile]:
    """Open a raw file: read its header, but not its pixels.

    Raises:
        MissingExtraError: The package rawpy is not installed.
        BrokenImageError: LibRaw does not know the camera, or the file is cut off or damaged.
        ImageTooLargeError: The image has more pixels than `max_megapixels`.
    """
    try:
        import rawpy
    except ImportError as error:
        raise RAW.missing() from error
    stream.seek(0)
    with _readable():
        file = rawpy.imread(cast(BinaryIO, stream))
    with file:
        sizes = file.sizes
        for size in ((sizes.raw_width, sizes.raw_height), (sizes.width, sizes.height)):
            options.check_size(size)
        orientation = ORIENTATIONS.get(sizes.flip, 1)
        upright = (sizes.height, sizes.width) if orientation in SIDEWAYS else (sizes.width, sizes.height)
        yield RawFile(upright, orientation, file, options)


@contextmanager
def _readable() -> Iterator[None]:
    """Turn the errors of LibRaw into those of this package."""
    import rawpy

    try:
        yield
    except rawpy.LibRawUnsufficientMemoryError as error:
        raise MemoryError from error
    except (rawpy.LibRawTooBigError, rawpy.LibRawMemPoolOverflowError) as error:
        raise ImageTooLargeError("beyond LibRaw's own limit of memory") from error
    except rawpy.LibRawFileUnsupportedError as error:
        version = ".".join(map(str, rawpy.libraw_version))
        raise BrokenImageError(f"damaged, or of a camera that LibRaw {version} does not know") from error
    except (rawpy.LibRawError, rawpy.NotSupportedError) as error:
        raise BrokenImageError(f"cut off or damaged (LibRaw: {_text(error)})") from error


def _text(error: Exception) -> str:
    cause = error.args[0] if error.args else ""
    return cause.decode("utf-8", "replace") if isinstance(cause, bytes) else str(cause)
