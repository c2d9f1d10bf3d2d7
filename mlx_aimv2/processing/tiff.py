"""A TIFF file as an image with 8 bits a channel, where Pillow would give other pixels or none.

Pillow keeps what it reads as transformers does: one plane, up to 8 bits, and everything compressed as JPEG, WebP or
fax. The rest is read here: planes, deep samples, signed ones and floats, alpha of any width, wide palettes, no data.
What neither reads is refused by the name of its tag.
"""

from __future__ import annotations

from contextlib import suppress
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from ..errors import Advice, ImageTooLargeError
from .decode_options import DecodeOptions
from .scaling import is_no_data, scaled, valid
from .tiff_samples import is_plain, read_samples
from .tiff_tags import (
    CIELAB,
    CMYK,
    COLOR_SAMPLES,
    GRAY,
    GRAY_INVERTED,
    ICCLAB,
    PALETTE,
    PILLOWS,
    RGB,
    UINT,
    YCBCR,
    TiffTags,
    read_tags,
)

MOST_BYTES = 16  # of samples, for each pixel that may be


def open_tiff(stream: IO[bytes], options: DecodeOptions, allow_missing: bool = False) -> Image.Image | None:
    """The first page of a TIFF file, its orientation still to be applied; None where Pillow reads it rightly.

    Args:
        stream: The file, seekable.
        options: How many pixels may be; more are refused, before anything is decoded.
        allow_missing: Whether missing strips are black; otherwise they are an error.

    Returns:
        In mode L, LA, RGB, RGBA, CMYK, LAB or YCbCr. Its EXIF holds the orientation, its `info` the ICC profile.

    Raises:
        ImageError: A tag has a value that cannot be read; the message names it.
        ImageTooLargeError: Too many bytes of samples.
        BrokenImageError: Cut off, or damaged.
    """
    tags = read_tags(stream)
    if tags is None:
        return None
    width, height = tags.size
    options.check_size(tags.size)
    if _is_pillows(tags):
        return None
    if width * height * tags.samples * tags.bits / 8 > MOST_BYTES * options.max_megapixels * 1e6:
        raise ImageTooLargeError(
            f"{width}x{height} with {tags.samples} samples of {tags.bits} bits is more than memory is used for"
            f" at {options.max_megapixels:g} megapixels",
            Advice("raise {}", "max_megapixels"),
        )
    image = _image(read_samples(stream, tags, allow_missing), tags)
    if "ICCProfile" in tags.values:
        image.info["icc_profile"] = bytes(tags.values["ICCProfile"])
    image.getexif()[ExifTags.Base.Orientation] = tags.one("Orientation", 1)
    return image


def is_tiff(stream: IO[bytes]) -> bool:
    """Whether a stream, which is rewound, begins as a TIFF file does."""
    stream.seek(0)
    head = stream.read(4)
    stream.seek(0)
    return head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def through_libtiff(image: ImageFile.ImageFile) -> None:
    """Let libtiff read a YCbCr image that is not compressed: it knows about subsampled colours, Pillow does not."""
    photometric, compression = (image.tag_v2.get(tag, 1) for tag in (262, 259))  # type: ignore[attr-defined]
    if photometric == YCBCR and compression == 1 and image.mode == "YCbCr":
        image.use_load_libtiff = True  # type: ignore[attr-defined]
        image._mode = "RGB"
        whole = (0, 0, *getattr(image, "_tile_size", image.size))
        where = image.tag_v2.offset  # type: ignore[attr-defined]
        image.tile = [ImageFile._Tile("libtiff", whole, 0, ("RGBX", False, where))]


def _is_pillows(tags: TiffTags) -> bool:
    """Whether Pillow reads such a file rightly.

    Raises:
        ImageError: Nobody here does.
    """
    photometric = tags.photometric
    if tags.compression in PILLOWS:
        most = 1 if PILLOWS[tags.compression].startswith("CCITT") else 8
        if tags.bits != most:
            tags.refuse("BitsPerSample", f"not supported with {PILLOWS[tags.compression]}")
        if tags.big and tags.byte_order == ">":
            tags.refuse("Compression", "not supported in a BigTIFF file of that byte order")
        return True
    if not is_plain(tags):
        tags.refuse("Compression")
    if photometric not in COLOR_SAMPLES:
        tags.refuse("PhotometricInterpretation")
    kind, bits, extra, _ = tags.sample_format, tags.bits, tags.extra, tags.predictor
    colors = COLOR_SAMPLES[photometric]
    if tags.samples < colors:
        tags.refuse("SamplesPerPixel", f"not enough for PhotometricInterpretation {photometric}")
    if tags.one("InkSet", 1) != 1 and photometric == CMYK:
        tags.refuse("InkSet", "inks other than cyan, magenta, yellow and black are not supported")
    if colors == 1 and len(extra) > 1:
        tags.refuse(
            "SamplesPerPixel", f"which are colours is not said by PhotometricInterpretation {photometric}"
        )
    if photometric in (CMYK, CIELAB, ICCLAB) and set(extra) - {0}:
        tags.refuse(
            "ExtraSamples", f"transparency is not supported with PhotometricInterpretation {photometric}"
        )
    if photometric in (CMYK, YCBCR, CIELAB, ICCLAB, PALETTE) and kind != UINT and not _is_signed_lab(tags):
        tags.refuse("SampleFormat", f"not supported with PhotometricInterpretation {photometric}")
    if photometric == YCBCR:
        return _check_ycbcr(tags)
    if photometric in (CIELAB, ICCLAB) and bits not in (8, 16):
        tags.refuse("BitsPerSample", f"not supported with PhotometricInterpretation {photometric}")
    if photometric == PALETTE and (bits > 16 or "ColorMap" not in tags.values):
        tags.refuse("ColorMap" if bits <= 16 else "BitsPerSample", "a palette cannot be read like that")
    ordinary = (
        tags.one("PlanarConfiguration", 1) == 1
        and tags.one("FillOrder", 1) == 1
        and "GDAL_NODATA" not in tags.values
        and not (tags.big and tags.byte_order == ">")  # which Pillow does not open
    )
    if not ordinary or kind != UINT or len(extra) > 1:
        return False
    if photometric == PALETTE:
        return bits in (1, 2, 4, 8) and not extra and max(tags.values["ColorMap"]) > 255
    if photometric in (GRAY, GRAY_INVERTED):
        return bits in (1, 2, 4, 8) and not extra
    return photometric in (RGB, CMYK) and bits == 8 and extra != (1,)


def _check_ycbcr(tags: TiffTags) -> bool:
    """Whether libtiff reads a YCbCr image; otherwise its planes are read here."""
    if tags.bits != 8 or tags.samples != 3:
        tags.refuse("BitsPerSample" if tags.bits != 8 else "SamplesPerPixel", "not supported for YCbCr")
    if not tags.in_planes:
        return True
    if tuple(tags.values.get("YCbCrSubSampling", (2, 2))) != (1, 1):
        tags.refuse("YCbCrSubSampling", "not supported with PlanarConfiguration 2")
    return False


def _is_signed_lab(tags: TiffTags) -> bool:
    return tags.photometric in (CIELAB, ICCLAB) and tags.sample_format in (1, 2)


def _image(values: NDArray[Any], tags: TiffTags) -> Image.Image:
    """Samples (H, W, samples) as an image with 8 bits a channel."""
    photometric = tags.photometric
    colors = values[..., : COLOR_SAMPLES[photometric]]
    if photometric in (CIELAB, ICCLAB):
        return _lab(colors, photometric)
    if photometric == PALETTE:
        levels = _palette(tags)[np.minimum(colors[..., 0], 2**tags.bits - 1)]
        return _with_alpha(levels, values, tags, None)
    no_data = _no_data(tags)
    missing = None
    if no_data is not None:
        missing = is_no_data(colors, no_data)
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
    """Unsigned samples of up to 16 bits as levels."""
    if tags.bits == 8:
        return colors.astype(np.uint8)
    if tags.bits == 16 and colors.shape[-1] > 1:
        return (colors >> 8).astype(np.uint8)  # as Pillow, and with it the reference, reads 16-bit colours
    return scaled(colors, 2**tags.bits - 1)


def _with_alpha(
    levels: NDArray[np.uint8], values: NDArray[Any], tags: TiffTags, some: NDArray[np.bool_] | None
) -> Image.Image:
    """Grey or RGB levels (H, W, C), with the alpha among the extra samples and without what holds nothing."""
    kinds = tags.extra
    which = next((k for k, kind in enumerate(kinds) if kind in (1, 2, 999)), None)
    alpha: NDArray[np.uint8] | None = None
    if which is not None:
        stored = values[..., COLOR_SAMPLES[tags.photometric] + which]
        if tags.sample_format == UINT:
            alpha = scaled(stored, 2**tags.bits - 1)
        else:
            whole = 1.0 if stored.dtype.kind == "f" else float(np.iinfo(stored.dtype).max)
            alpha = np.rint(np.clip(np.nan_to_num(stored / whole), 0.0, 1.0) * 255).astype(np.uint8)
        if kinds[which] == 1:
            levels = _divided(levels, alpha)
    if some is not None and not some.all():
        alpha = np.where(some, 255 if alpha is None else alpha, 0).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(levels[..., 0] if levels.shape[-1] == 1 else levels))
    if alpha is not None:
        image.putalpha(Image.fromarray(np.ascontiguousarray(alpha)))
    return image


def _divided(levels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours that were multiplied with alpha as they were before."""
    opaque = np.maximum(alpha, 1).astype(np.uint16)[..., None]
    return np.minimum((levels.astype(np.uint16) * 255 + opaque // 2) // opaque, 255).astype(np.uint8)


def _palette(tags: TiffTags) -> NDArray[np.uint8]:
    """The colours of a palette, (2^bits, 3)."""
    colors = np.zeros(3 * 2**tags.bits, np.uint32)
    stored = tags.values["ColorMap"][: len(colors)]
    colors[: len(stored)] = stored
    if colors.max() > 255:  # else a writer took 8 bits for 16
        colors >>= 8
    return np.ascontiguousarray(colors.reshape(3, -1).T.astype(np.uint8))


def _lab(values: NDArray[Any], photometric: int) -> Image.Image:
    """CIE L*a*b* as Pillow keeps it: a* and b* from -128 to 127 as 0..255."""
    wide = values.dtype.itemsize == 2
    unsigned = values.view(f"u{values.dtype.itemsize}")
    lightness, ab = unsigned[..., :1], unsigned[..., 1:]
    if wide:
        top = 65535 if photometric == CIELAB else 65280  # the encoding of ICC profiles
        lightness, ab = scaled(np.minimum(lightness, top), top), ab >> 8
    bands = np.concatenate([lightness, ab ^ 128 if photometric == CIELAB else ab], axis=-1).astype(np.uint8)
    return Image.merge("LAB", [Image.fromarray(np.ascontiguousarray(bands[..., c])) for c in range(3)])


def _no_data(tags: TiffTags) -> float | None:
    """The value that GDAL's tag declares as no data."""
    with suppress(ValueError):
        return float(bytes(tags.values.get("GDAL_NODATA", b"")).rstrip(b"\0 ").decode("ascii", "replace"))
    return None
