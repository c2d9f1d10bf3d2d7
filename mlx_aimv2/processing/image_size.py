"""The size of an image from its header, without decoding it."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ExifTags, Image

from .decode import SIDEWAYS, DecodeOptions, ImageInput, decode_image
from .formats import identify
from .jxl import LOOK, is_jxl, jxl_size
from .raw import is_raw, open_raw
from .source_image import SourceImage
from .tiff import is_tiff
from .tiff_tags import read_tags

ORIENTATION = ExifTags.Base.Orientation


def upright_size(source: ImageInput, options: DecodeOptions) -> tuple[int, int]:
    """(width, height) in pixels of the image that `decode_image` gives.

    A file is decoded only if its header does not tell its size. An open file is read to its end.

    Raises:
        ImageError: the image cannot be read; see `decode_image` for this and the other errors.
    """
    while type(source) is SourceImage:
        source = source.open()
    if isinstance(source, np.ndarray):
        return source.shape[1], source.shape[0]
    if isinstance(source, bytes) or (isinstance(source, (str, os.PathLike)) and _is_file(source)):
        with (
            suppress(Exception),  # decoding reports it, whatever it is
            io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as stream,
        ):
            return _size_in(stream, options)
    return decode_image(source, options).size


def _is_file(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a file; reading a pipe would take its content."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def _size_in(stream: IO[bytes], options: DecodeOptions) -> tuple[int, int]:
    if is_raw(stream):
        with open_raw(stream, options) as raw:
            return raw.size
    tags = read_tags(stream) if is_tiff(stream) else None
    if tags is not None:  # Pillow exchanges width and height of TIFF itself
        size, orientation = tags.size, tags.first("Orientation", 1)
    else:
        stream.seek(0)
        if is_jxl(stream.read(LOOK)):  # its plugin decodes the pixels while it opens a file
            options.check_size(jxl_size(stream))
        image = identify(stream)
        size, orientation = image.size, _orientation(image, stream)
    return (size[1], size[0]) if orientation in SIDEWAYS else size


def _orientation(image: Image.Image, stream: IO[bytes]) -> Any:
    """The EXIF orientation; of a PNG without one before its pixels, these are decoded only if EXIF follows them."""
    if image.format == "PNG" and not image.info.keys() & {"exif", "Raw profile type exif"}:
        stream.seek(8)
        while len(start := stream.read(8)) == 8 and start[4:] != b"eXIf":
            stream.seek(int.from_bytes(start[:4], "big") + 4, io.SEEK_CUR)
        if len(start) < 8:
            return 1
        image = identify(stream)
    return image.getexif().get(ORIENTATION, 1)
