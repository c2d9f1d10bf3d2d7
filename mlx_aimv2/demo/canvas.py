"""A Pillow canvas with smooth lines and text that is cut to a width."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

SCALE = 2  # the drawing is reduced by this factor at the end, which smooths lines
INK, MUTED, PAPER = (31, 41, 55), (107, 114, 128), (255, 255, 255)
TEXT = 13  # font size


@functools.lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * SCALE)


def length(text: str, size: int = TEXT) -> float:
    """The width of a text in pixels."""
    return _font(size).getlength(text) / SCALE


class Canvas:
    """A white image to draw on; every measure is in pixels of the finished image."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def finish(self) -> Image.Image:
        """The finished image."""
        return self.image.resize(self.size, Image.Resampling.LANCZOS)

    def text(
        self,
        at: tuple[float, float],
        text: str,
        anchor: str = "lm",
        size: int = TEXT,
        color: Color = INK,
        width: float = math.inf,
    ) -> None:
        """Write a text at a point.

        Args:
            at: the point (x, y).
            text: the font has ASCII only, other characters become "?".
            anchor: the part of the text that lies at the point, as in Pillow.
            size: of the font.
            color: of the letters.
            width: a longer text is cut and ends with "...".
        """
        text = text.encode("ascii", "replace").decode()
        if length(text, size) > width:
            while text and length(f"{text}...", size) > width:
                text = text[:-1]
            text = f"{text.rstrip()}..."
        self._draw.text((at[0] * SCALE, at[1] * SCALE), text, fill=color, font=_font(size), anchor=anchor)

    def line(self, points: Sequence[tuple[float, float]], color: Color, width: float) -> None:
        """Draw a line through points."""
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self._draw.line(scaled, fill=color, width=round(width * SCALE), joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """Draw a filled rectangle."""
        self._draw.rectangle((left * SCALE, top * SCALE, max(left, right) * SCALE, bottom * SCALE), color)
