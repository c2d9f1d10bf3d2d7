"""Decode images at a reduced size with macOS's ImageIO, through the package pyobjc-framework-Quartz.

ImageIO uses the media engine of the processor for HEIC. It is optional: whatever fails here, Pillow decodes.
"""

from __future__ import annotations

from typing import Any

from PIL import Image

ASPECT_PIXELS = 1.5  # the shorter edge may differ by as much from the exact ratio


def decode_smaller(data: bytes, size: tuple[int, int], longest: int) -> Image.Image | None:
    """Decode the primary image of a file to upright sRGB pixels in mode RGB.

    Args:
        data: The whole file, without transparency.
        size: (width, height) in pixels of the upright image in the file.
        longest: The longer edge of the result in pixels, below that of `size`.

    Returns:
        None where ImageIO or Quartz is missing, or does not give an image of that size.
    """
    try:
        image = _decode(data, longest)
    except Exception:  # noqa: BLE001 - Pillow decodes the file, and gives the reason if it fails too
        return None
    fits = image is not None and max(image.size) >= longest - 1
    return image if image is not None and fits and _same_shape(image.size, size) else None


def _same_shape(reduced: tuple[int, int], size: tuple[int, int]) -> bool:
    (width, height), scale = size, max(reduced) / max(size)
    return all(
        abs(edge - scale * full) <= ASPECT_PIXELS for edge, full in zip(reduced, (width, height), strict=True)
    )


def _decode(data: bytes, longest: int) -> Image.Image | None:
    import objc
    import Quartz

    with objc.autorelease_pool():
        source = Quartz.CGImageSourceCreateWithData(Quartz.CFDataCreate(None, data, len(data)), None)
        if source is None:
            return None
        options = {
            Quartz.kCGImageSourceCreateThumbnailFromImageAlways: True,  # not the small one in the file
            Quartz.kCGImageSourceCreateThumbnailWithTransform: True,  # upright
            Quartz.kCGImageSourceThumbnailMaxPixelSize: longest,
            Quartz.kCGImageSourceShouldCache: False,
        }
        index = Quartz.CGImageSourceGetPrimaryImageIndex(source)
        image = Quartz.CGImageSourceCreateThumbnailAtIndex(source, index, options)
        return None if image is None else _srgb(Quartz, image)


def _srgb(quartz: Any, image: Any) -> Image.Image | None:
    """The pixels of a CGImage, converted to sRGB by drawing it."""
    width, height = quartz.CGImageGetWidth(image), quartz.CGImageGetHeight(image)
    space = quartz.CGColorSpaceCreateWithName(quartz.kCGColorSpaceSRGB)
    layout = quartz.kCGImageAlphaNoneSkipLast | quartz.kCGBitmapByteOrder32Big  # red, green, blue, unused
    context = quartz.CGBitmapContextCreate(None, width, height, 8, 0, space, layout)
    if context is None:
        return None
    quartz.CGContextDrawImage(context, quartz.CGRectMake(0, 0, width, height), image)
    drawn = quartz.CGBitmapContextCreateImage(context)
    pixels = bytes(quartz.CGDataProviderCopyData(quartz.CGImageGetDataProvider(drawn)))
    stride = quartz.CGImageGetBytesPerRow(drawn)
    return Image.frombytes("RGB", (width, height), pixels, "raw", "RGBX", stride)
