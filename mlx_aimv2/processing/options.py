"""Options for reading images: exact or fast JPEG, background, size limit, colour profiles, range of patches."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from ..errors import Advice, ImageError, ImageTooLargeError, InputError
from ..options.fields import one_of, option
from ..presets import PATCH_RANGE

MIN_PATCHES, MAX_PATCHES = PATCH_RANGE
READING = "Reading images"


@dataclass(frozen=True)
class DecodeOptions:
    """Options for decoding images.

    Attributes:
        decode: "fast" lets the JPEG decoder reduce the image by 2, 4 or 8, to at least twice the size that the model
            needs; HEIC and camera raw may be replaced by a thumbnail in the file of at least that size. Other formats
            are always exact. "native" gives the pixels of "exact", with JPEGs decoded by mlx-data.
        background: a Pillow colour name or "#rrggbb"; "drop" keeps the stored colours, as Pillow's `convert("RGB")`.
        allow_truncated: missing pixels are grey or black, with a warning. A file that lacks only the end marker or
            metadata has all pixels and is always decoded.
        color_managed: converts Display P3, Adobe RGB, CMYK and others. None converts with decode="fast" only: "exact"
            equals transformers, which ignores profiles.

    Raises:
        InputError: A field has an invalid value, or decode="native" is not possible on this machine.
    """

    decode: Literal["exact", "fast", "native"] = option(
        "exact",
        "fast: decode large JPEGs at a reduced size; exact: as transformers does; native: the same, by mlx-data.",
        READING,
        one_of(("fast", "exact", "native")),
    )
    background: str = option(
        "white", "Colour behind transparent images, or drop to ignore transparency as published.", READING
    )
    max_megapixels: float = option(200.0, "Skip larger images before decoding them.", READING)
    allow_truncated: bool = option(
        False,
        "Use the pixels that exist in images that are cut off, instead of skipping the images.",
        READING,
    )
    color_managed: bool | None = option(
        None,
        "Convert colours of embedded profiles to sRGB. [default: with --decode fast; always in evaluate and compare]",
        READING,
    )

    def __post_init__(self) -> None:
        if self.decode not in ("exact", "fast", "native"):
            raise InputError(f"decode is {self.decode!r}, but has to be 'exact', 'fast' or 'native'")
        if self.decode == "native":
            from .native_jpeg import require_decoder  # here: most never need it

            require_decoder()
        self.background_color  # noqa: B018 - raises for an invalid colour
        cap: object = self.max_megapixels
        if isinstance(cap, bool) or not isinstance(cap, (int, float)) or not 0 < cap < math.inf:
            raise InputError(f"max_megapixels is {cap!r}, but has to be a number greater than 0")

    @property
    def background_color(self) -> tuple[int, int, int] | None:
        """The background as (red, green, blue) in 0..255, or None for "drop"."""
        if self.background == "drop":
            return None
        from PIL import ImageColor  # here: the command line declares these options without Pillow

        channels: tuple[int, ...] = ()
        with suppress(ValueError, TypeError, AttributeError):  # unknown, or not a string
            channels = ImageColor.getrgb(self.background)
        if len(channels) != 3 or max(channels) > 255:
            rule = "a colour name such as 'white', '#rrggbb', or 'drop'"
            raise InputError(f"background is {self.background!r}, but has to be {rule}")
        return channels[0], channels[1], channels[2]

    @property
    def manages_colors(self) -> bool:
        """Whether embedded colour profiles are converted."""
        return self.decode == "fast" if self.color_managed is None else self.color_managed

    def check_size(self, size: tuple[int, int]) -> None:
        """Refuse an image of (width, height) that has no pixels, or too many.

        Raises:
            ImageError: The image has no pixels.
            ImageTooLargeError: The image has more pixels than `max_megapixels`.
        """
        width, height = size
        if width < 1 or height < 1:
            raise ImageError(f"{width}x{height} has no pixels")
        if width * height > self.max_megapixels * 1e6:
            raise ImageTooLargeError(
                f"{width}x{height} is {width * height / 1e6:.1f} megapixels, more than the"
                f" {self.max_megapixels:g} allowed",
                Advice("raise {}", "max_megapixels"),
            )


@dataclass(frozen=True)
class NativeOptions:
    """The range of patches of an image at native resolution.

    Attributes:
        min_patches: smaller images are enlarged to at least this many, if a patch grid of nearly the same aspect
            ratio lies between the two bounds. The published model was trained on 112 to 4096.
        max_patches: time and memory of attention grow with its square.

    Raises:
        InputError: A bound is below 1, or `max_patches` is below `min_patches`.
    """

    min_patches: int = option(
        MIN_PATCHES, "Native resolution: enlarge images of fewer patches; 1 for none.", READING
    )
    max_patches: int = option(MAX_PATCHES, "Native resolution: shrink images of more patches.", READING)

    def __post_init__(self) -> None:
        for name, value in (("min_patches", self.min_patches), ("max_patches", self.max_patches)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}, but has to be a whole number of at least 1")
        if self.max_patches < self.min_patches:
            raise InputError(f"max_patches ({self.max_patches}) is below min_patches ({self.min_patches})")
