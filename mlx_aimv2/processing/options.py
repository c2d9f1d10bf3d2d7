"""Options for decoding images: exact or fast JPEG, background, size limit, colour profiles."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from PIL import ImageColor

from ..errors import Advice, ImageError, ImageTooLargeError, InputError
from .rgb import Color


@dataclass(frozen=True)
class DecodeOptions:
    """Options for decoding images.

    Attributes:
        decode: "exact" decodes every pixel; "fast" lets the JPEG decoder reduce the image by 2, 4 or 8, to at least
            twice the size that the model needs. Other formats are always exact.
        background: Colour under transparent pixels, a Pillow colour name or "#rrggbb"; "drop" ignores
            transparency and keeps the stored colours, as Pillow's `convert("RGB")` does.
        max_megapixels: Images with more pixels, in millions, are refused before they are decoded.
        allow_truncated: Decode a file that is cut off, with a warning; missing pixels are grey or black. Otherwise it
            is refused. A file that lacks only the end marker or metadata has all pixels and is always decoded.
        color_managed: Convert the colours of embedded profiles (Display P3, Adobe RGB, CMYK ...) to sRGB. None
            converts with decode="fast" only: "exact" equals transformers, which ignores profiles.

    Raises:
        InputError: A field has an invalid value.
    """

    decode: Literal["exact", "fast"] = "exact"
    background: str = "white"
    max_megapixels: float = 200.0
    allow_truncated: bool = False
    color_managed: bool | None = None

    def __post_init__(self) -> None:
        if self.decode not in ("exact", "fast"):
            raise InputError(f"decode is {self.decode!r}, but has to be 'exact' or 'fast'")
        self.background_color  # noqa: B018 - raises for an invalid colour
        cap: object = self.max_megapixels
        if isinstance(cap, bool) or not isinstance(cap, (int, float)) or not 0 < cap < math.inf:
            raise InputError(f"max_megapixels is {cap!r}, but has to be a number greater than 0")

    @property
    def background_color(self) -> Color | None:
        """The background as (red, green, blue) in 0..255, or None for "drop"."""
        if self.background == "drop":
            return None
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
