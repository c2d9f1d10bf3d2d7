"""Convert images with an embedded colour profile (ICC), or with declared colours, to sRGB.

Little CMS converts 8-bit pixels with the perceptual intent, through Pillow's ImageCms.
"""

from __future__ import annotations

import functools
import io
import itertools
import warnings

import numpy as np
from PIL import Image, ImageCms

from .declared_colors import declared_profile
from .rgb import DEEP_MODES, deep_to_gray

MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour space of a profile -> Pillow mode
KINDS = ("scnr", "mntr", "prtr", "spac")  # device classes whose profiles describe the colours of an image
PLAIN = {
    "1": "L",
    "La": "LA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
}  # other modes -> a mode that a profile applies to
DARKEST_WHITE = 200  # a profile that makes white darker is damaged
LEVELS = (0, 64, 128, 192, 255)  # of each channel, in the colours that test whether a profile is sRGB
SAME = 2  # a profile that changes no test colour by more is sRGB
CACHED_TRANSFORMS = 32


def to_srgb(image: Image.Image, label: str) -> Image.Image:
    """Convert a loaded image from the colours of its embedded profile to sRGB.

    Args:
        image: In any mode.
        label: Name of the image in the warning about an unusable profile, which is ignored.

    Returns:
        The image itself if it has no profile, an sRGB profile, or a mode without profiles; otherwise a new image in
        mode RGB or, with transparency, RGBA.
    """
    profile = image.info.get("icc_profile", b"")
    if profile == b"":
        profile = declared_profile(image)
    if profile == b"":
        return image
    colors, alpha = _split(image)
    if colors.mode not in MODES.values():
        return image
    try:
        if profile is None:  # Pillow could not join the segments of the profile
            raise ValueError("it is cut off or damaged")
        # a grey copy of a coloured image, with the profile of the original
        if colors.mode == "L" and _space(bytes(profile)) == "RGB":
            colors = colors.convert("RGB")
        transform = _transform(bytes(profile), colors.mode)
        if transform is None:
            return image
        converted = ImageCms.applyTransform(colors, transform)
    except (ImageCms.PyCMSError, ValueError, OSError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())
        warnings.warn(f"{label}: its colour profile is ignored ({reason})", stacklevel=2)
        return image
    assert converted is not None  # None only if inPlace
    if alpha is not None:
        converted.putalpha(alpha)
    # the EXIF orientation is read later, from one of the entries
    converted.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return converted


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Split an image into its colours and its alpha channel, if it has one."""
    if image.mode in DEEP_MODES:
        image = deep_to_gray(image)
    if image.mode in PLAIN:
        image = image.convert(PLAIN[image.mode])
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode in ("RGB", "L") and "transparency" in image.info:
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    if image.mode in ("RGBA", "LA"):
        *channels, alpha = image.split()
        return Image.merge(image.mode[:-1], channels), alpha
    return image, None


def _space(profile: bytes) -> str:
    """The colour space in a profile's header, such as "RGB"."""
    return profile[16:20].decode("latin-1").strip()


@functools.lru_cache(CACHED_TRANSFORMS)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform of pixels of a mode to sRGB; None for a profile that is sRGB.

    Raises:
        ImageCms.PyCMSError: The profile is damaged.
        ValueError: It describes another kind of pixels, or makes white dark.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if MODES.get(space) != mode:
        raise ValueError(f"it is for {space} pixels, not for {mode}")
    if source.profile.device_class not in KINDS:
        raise ValueError(f"its class is {source.profile.device_class.strip()!r}, which describes no image")
    # without the cache of the last pixel, threads can share a transform
    transform = ImageCms.buildTransform(
        source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=ImageCms.Flags.NOCACHE
    )
    white = ImageCms.applyTransform(Image.new(mode, (1, 1), 0 if mode == "CMYK" else "white"), transform)
    color = tuple(np.asarray(white)[0, 0].tolist())
    if min(color) < DARKEST_WHITE:
        raise ValueError(f"it makes {color} of white")
    if mode == "RGB" and _is_identity(transform):
        return None
    return transform


def _is_identity(transform: ImageCms.ImageCmsTransform) -> bool:
    colors = np.array(list(itertools.product(LEVELS, repeat=3)), dtype=np.uint8)[None]
    moved = np.asarray(ImageCms.applyTransform(Image.fromarray(colors), transform))
    return bool(np.abs(moved.astype(int) - colors).max() <= SAME)
