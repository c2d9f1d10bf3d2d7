"""Embedded colour profiles (ICC): from the colours they describe to sRGB.

Little CMS does it, through Pillow's ImageCms, on 8-bit pixels with the perceptual intent.
"""

from __future__ import annotations

import functools
import io
import itertools
import warnings

import numpy as np
from PIL import Image, ImageCms

from .rgb import DEEP_MODES, deep_to_gray

MODES = {
    "RGB": "RGB",
    "GRAY": "L",
    "CMYK": "CMYK",
}  # colour space of a profile -> mode of the pixels it describes
KINDS = ("scnr", "mntr", "prtr", "spac")  # classes of profile that say what the colours of an image are
PLAIN = {
    "1": "L",
    "La": "LA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
}  # other modes -> what profiles can be applied to
DARKEST_WHITE = 200  # what white becomes, at least, with a profile that makes sense
LEVELS = (0, 64, 128, 192, 255)  # of each channel, in the colours that tell whether a profile is sRGB
SAME = 2  # a profile that moves none of them by more is sRGB: its images stay as they are
KEPT_TRANSFORMS = 32


def to_srgb(image: Image.Image, label: str) -> Image.Image:
    """A loaded image with the colours of its embedded profile, in sRGB.

    Args:
        image: In any mode.
        label: What a warning calls it: a profile that cannot be used is ignored with one.

    Returns:
        The image itself where it has no profile, one of sRGB, or a mode that profiles do not describe; otherwise a
        new image in mode RGB or, with transparency, RGBA.
    """
    profile = image.info.get("icc_profile", b"")
    if profile == b"":
        return image
    colors, alpha = _split(image)
    if colors.mode not in MODES.values():
        return image
    try:
        if profile is None:  # what Pillow keeps of one that it could not put together
            raise ValueError("it is cut off or damaged")
        if colors.mode == "L" and _space(bytes(profile)) == "RGB":
            colors = colors.convert("RGB")  # grey that kept the profile of its coloured original
        transform = _transform(bytes(profile), colors.mode)
        if transform is None:
            return image
        converted = ImageCms.applyTransform(colors, transform)
    except (ImageCms.PyCMSError, ValueError, OSError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())
        warnings.warn(f"{label}: its colour profile is ignored ({reason})", stacklevel=2)
        return image
    assert converted is not None  # it is not asked to work in place
    if alpha is not None:
        converted.putalpha(alpha)
    # the orientation is asked for later, and kept in one or the other
    converted.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return converted


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colours without transparency, and the transparency."""
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
    """The colour space that a profile's header names, such as "RGB"."""
    return profile[16:20].decode("latin-1").strip()


@functools.lru_cache(KEPT_TRANSFORMS)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What brings pixels of a mode to sRGB; None for a profile that is sRGB.

    Raises:
        ImageCms.PyCMSError: The profile is damaged.
        ValueError: It describes another kind of pixels, or makes something dark of white.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space.strip()
    if MODES.get(space) != mode:
        raise ValueError(f"it is one for {space} pixels, not for {mode}")
    if source.profile.device_class not in KINDS:
        raise ValueError(f"its class is {source.profile.device_class.strip()!r}, which describes no image")
    # without Little CMS's memory of the last pixel, several threads may use one transform
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
