"""Decode TIFF files that Pillow reads wrongly or not at all to images with 8 bits per channel.

Pillow still reads the files that transformers reads through it: one plane, up to 8 bits, JPEG, WebP and fax
compression. This module reads planes, deep, signed and float samples, alpha of any width, wide palettes and no-data
values. All other files are refused with the name of the tag.
"""

from __future__ import annotations

from contextlib import suppress
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from ..errors import Advice, ImageTooLargeError
from .options import DecodeOptions
from .scaling import is_no_data, scaled, valid
from .tiff_samples import is_plain, read_samples
from .tiff_tags import (
    CIELAB,
    CMYK,
    COLOR_SAMPLES,
    GRAY,
    GRAY_INVERTED,
    ICCLAB,
    INT,
    PALETTE,
    PILLOWS,
    RGB,
    UINT,
    YCBCR,
    TiffTags,
    read_tags,
)

MOST_BYTES = 16  # of samples, for each allowed pixel


def open_tiff(stream: IO[bytes], options: DecodeOptions) -> Image.Image | None:
    """Decode the first page of a TIFF file without applying its orientation; None if Pillow reads the file correctly.

    Args:
        stream: The file, seekable.
        options: The limit of pixels, which is checked before decoding.

    Returns:
        An image in mode L, LA, RGB, RGBA, CMYK, LAB or YCbCr, with the orientation in its EXIF and the ICC profile in
        its `info`.

    Raises:
        ImageError: The value of a tag is not supported; the message names the tag.
        ImageTooLargeError: The samples have too many bytes.
        BrokenImageError: The file is cut off or damaged.
    """
    tags = read_tags(stream)
    if tags is None:
        return None
    width, height = tags.size
    options.check_size(tags.size)
    _check_tags(tags)
    if _pillow_reads(tags):
        return None
    if width * height * tags.samples * tags.bits / 8 > MOST_BYTES * options.max_megapixels * 1e6:
        raise ImageTooLargeError(
            f"{width}x{height} with {tags.samples} samples of {tags.bits} bits is more than memory is used for"
            f" at {options.max_megapixels:g} megapixels",
            Advice("raise {}", "max_megapixels"),
        )
    image = _image(read_samples(stream, tags), tags)
    if "ICCProfile" in tags.values:
        image.info["icc_profile"] = bytes(tags.values["ICCProfile"])
    image.getexif()[ExifTags.Base.Orientation] = tags.first("Orientation", 1)
    return image


def is_tiff(stream: IO[bytes]) -> bool:
    """Whether a stream begins with the signature of TIFF; rewinds the stream."""
    stream.seek(0)
    head = stream.read(4)
    stream.seek(0)
    return head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def through_libtiff(image: ImageFile.ImageFile) -> None:
    """Make Pillow read an uncompressed YCbCr image with libtiff, which supports subsampled colours."""
    photometric, compression = (image.tag_v2.get(tag, 1) for tag in (262, 259))  # type: ignore[attr-defined]
    if photometric == YCBCR and compression == 1 and image.mode == "YCbCr":
        image.use_load_libtiff = True  # type: ignore[attr-defined]
        image._mode = "RGB"
        whole = (0, 0, *getattr(image, "_tile_size", image.size))
        where = image.tag_v2.offset  # type: ignore[attr-defined]
        image.tile = [ImageFile._Tile("libtiff", whole, 0, ("RGBX", False, where))]


def _check_tags(tags: TiffTags) -> None:
    """Refuse tags that neither Pillow nor this module reads.

    Raises:
        ImageError: A value is not supported; the message names the tag.
    """
    photometric = tags.photometric
    described = f"PhotometricInterpretation {photometric}"
    if tags.compression in PILLOWS:
        _check_pillows_compression(tags)
        return
    if not is_plain(tags):
        tags.refuse("Compression")
    if photometric not in COLOR_SAMPLES:
        tags.refuse("PhotometricInterpretation")
    kind, bits, extra, _ = tags.sample_format, tags.bits, tags.extra, tags.predictor
    is_lab = photometric in (CIELAB, ICCLAB)
    if tags.samples < COLOR_SAMPLES[photometric]:
        tags.refuse("SamplesPerPixel", f"not enough for {described}")
    if tags.first("InkSet", 1) != 1 and photometric == CMYK:
        tags.refuse("InkSet", "inks other than cyan, magenta, yellow and black are not supported")
    if COLOR_SAMPLES[photometric] == 1 and len(extra) > 1:
        tags.refuse("SamplesPerPixel", f"{described} does not define which are colours")
    if (photometric == CMYK or is_lab) and set(extra) - {0}:
        tags.refuse("ExtraSamples", f"transparency is not supported with {described}")
    if (
        photometric in (CMYK, YCBCR, CIELAB, ICCLAB, PALETTE)
        and kind != UINT
        and not (is_lab and kind == INT)
    ):
        tags.refuse("SampleFormat", f"not supported with {described}")
    if photometric == YCBCR and (bits != 8 or tags.samples != 3):
        tags.refuse("BitsPerSample" if bits != 8 else "SamplesPerPixel", "not supported for YCbCr")
    if (
        photometric == YCBCR
        and tags.in_planes
        and tuple(tags.values.get("YCbCrSubSampling", (2, 2))) != (1, 1)
    ):
        tags.refuse("YCbCrSubSampling", "not supported with PlanarConfiguration 2")
    if is_lab and bits not in (8, 16):
        tags.refuse("BitsPerSample", f"not supported with {described}")
    if photometric == PALETTE and (bits > 16 or "ColorMap" not in tags.values):
        tags.refuse("ColorMap" if bits <= 16 else "BitsPerSample", "not supported for a palette")


def _check_pillows_compression(tags: TiffTags) -> None:
    name = PILLOWS[tags.compression]
    if tags.bits != (1 if name.startswith("CCITT") else 8):
        tags.refuse("BitsPerSample", f"not supported with {name}")
    if tags.big and tags.byte_order == ">":
        tags.refuse("Compression", "not supported in a BigTIFF file of that byte order")


def _pillow_reads(tags: TiffTags) -> bool:
    """Whether Pillow, or libtiff through it, decodes a file correctly that `_check_tags` accepts."""
    photometric, bits, extra = tags.photometric, tags.bits, tags.extra
    if tags.compression in PILLOWS:
        return True
    if photometric == YCBCR:
        return not tags.in_planes
    is_ordinary = (
        tags.first("PlanarConfiguration", 1) == 1
        and tags.first("FillOrder", 1) == 1
        and "GDAL_NODATA" not in tags.values
        and not (tags.big and tags.byte_order == ">")  # Pillow does not open these
    )
    if not is_ordinary or tags.sample_format != UINT or len(extra) > 1:
        return False
    if photometric == PALETTE:
        return bits in (1, 2, 4, 8) and not extra and max(tags.values["ColorMap"]) > 255
    if photometric in (GRAY, GRAY_INVERTED):
        return bits in (1, 2, 4, 8) and not extra
    return photometric in (RGB, CMYK) and bits == 8 and extra != (1,)


def _image(values: NDArray[Any], tags: TiffTags) -> Image.Image:
    """Convert samples (H, W, samples) to an image with 8 bits per channel."""
    photometric = tags.photometric
    colors = values[..., : COLOR_SAMPLES[photometric]]
    if photometric in (CIELAB, ICCLAB):
        return _lab(colors, photometric)
    if photometric == PALETTE:
        levels = _palette(tags)[np.minimum(colors[..., 0], 2**tags.bits - 1)]
        return _with_alpha(levels, values, tags, None)
    no_data = _no_data(tags)
    missing = None if no_data is None else is_no_data(colors, no_data)
    levels = (
        _light(colors, tags)
        if tags.sample_format == UINT and tags.bits <= 16
        else scaled(colors, None, missing)
    )
    if photometric == GRAY_INVERTED:
        levels = 255 - levels
    if photometric in (CMYK, YCBCR):
        return Image.fromarray(np.ascontiguousarray(levels), "CMYK" if photometric == CMYK else "YCbCr")
    return _with_alpha(levels, values, tags, valid(colors, no_data))


def _light(colors: NDArray[Any], tags: TiffTags) -> NDArray[np.uint8]:
    """Scale unsigned samples of up to 16 bits to 8-bit levels."""
    if tags.bits == 8:
        return colors.astype(np.uint8)
    if tags.bits == 16 and colors.shape[-1] > 1:
        return (colors >> 8).astype(np.uint8)  # as Pillow, and so transformers, reads 16-bit colours
    return scaled(colors, 2**tags.bits - 1)


def _with_alpha(
    levels: NDArray[np.uint8], values: NDArray[Any], tags: TiffTags, has_data: NDArray[np.bool_] | None
) -> Image.Image:
    """An image of grey or RGB levels (H, W, C) with the alpha sample; pixels without data become transparent."""
    index = next((k for k, kind in enumerate(tags.extra) if kind in (1, 2, 999)), None)
    alpha: NDArray[np.uint8] | None = None
    if index is not None:
        stored = values[..., COLOR_SAMPLES[tags.photometric] + index]
        if tags.sample_format == UINT:
            alpha = scaled(stored, 2**tags.bits - 1)
        else:
            whole = 1.0 if stored.dtype.kind == "f" else float(np.iinfo(stored.dtype).max)
            alpha = np.rint(np.clip(np.nan_to_num(stored / whole), 0.0, 1.0) * 255).astype(np.uint8)
        if tags.extra[index] == 1:
            levels = _unpremultiplied(levels, alpha)
    if has_data is not None and not has_data.all():
        alpha = np.where(has_data, 255 if alpha is None else alpha, 0).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(levels[..., 0] if levels.shape[-1] == 1 else levels))
    if alpha is not None:
        image.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
    return image


def _unpremultiplied(levels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Divide colours by the alpha that they were multiplied with."""
    opaque = np.maximum(alpha, 1).astype(np.uint16)[..., None]
    return np.minimum((levels.astype(np.uint16) * 255 + opaque // 2) // opaque, 255).astype(np.uint8)


def _palette(tags: TiffTags) -> NDArray[np.uint8]:
    """The colours of a palette, (2^bits, 3)."""
    colors = np.zeros(3 * 2**tags.bits, np.uint32)
    stored = tags.values["ColorMap"][: len(colors)]
    colors[: len(stored)] = stored
    if colors.max() > 255:  # otherwise the writer stored 8 bits instead of 16
        colors >>= 8
    return np.ascontiguousarray(colors.reshape(3, -1).T.astype(np.uint8))


def _lab(values: NDArray[Any], photometric: int) -> Image.Image:
    """Convert CIE L*a*b* to Pillow's LAB, which stores a* and b* from -128 to 127 as 0..255."""
    wide = values.dtype.itemsize == 2
    unsigned = values.view(f"u{values.dtype.itemsize}")
    lightness, ab = unsigned[..., :1], unsigned[..., 1:]
    if wide:
        top = 65535 if photometric == CIELAB else 65280  # the encoding of ICC profiles
        lightness, ab = scaled(np.minimum(lightness, top), top), ab >> 8
    bands = np.concatenate([lightness, ab ^ 128 if photometric == CIELAB else ab], axis=-1).astype(np.uint8)
    return Image.merge("LAB", [Image.fromarray(np.ascontiguousarray(bands[..., c])) for c in range(3)])


def _no_data(tags: TiffTags) -> float | None:
    """The no-data value in GDAL's tag."""
    with suppress(ValueError):
        return float(bytes(tags.values.get("GDAL_NODATA", b"")).rstrip(b"\0 ").decode("ascii", "replace"))
    return None
