"""What images of numbers are drawn with: text in any script, axes with round numbers, lines through points."""

from __future__ import annotations

import contextlib
import functools
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..storage.atomic import replacing

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Points = Sequence[tuple[float, float]]
Color = tuple[int, int, int]

SCALE = 2  # everything is drawn at twice its size and reduced: smooth lines
INK, MUTED, GRID, PAPER = (31, 41, 55), (107, 114, 128), (229, 231, 235), (255, 255, 255)
TEXT, TITLE = 13, 15  # sizes
DOT, LINE = 3, 2
# Pillow's own font has ASCII only. These come with macOS or common Linux systems, wide ones first.
SYSTEM_FONTS = (
    "Arial Unicode.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "Arial.ttf",
    "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "DejaVuSans.ttf", "NotoSans-Regular.ttf",
    "NotoSansArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf", "NotoSansDevanagari-Regular.ttf",
    "LiberationSans-Regular.ttf", "FreeSans.ttf",
)  # fmt: skip
NO_CHARACTER = "\U0010ffff"  # which no font has: it looks as every missing one does


@functools.lru_cache(maxsize=64)
def _font(name: str | None, size: int) -> Font | None:
    if name is None:
        return ImageFont.load_default(size)
    with contextlib.suppress(OSError):
        return ImageFont.truetype(name, size)
    return None


@functools.lru_cache(maxsize=4096)
def _has(name: str | None, character: str) -> bool:
    """Whether a font has a character."""
    font = _font(name, TEXT)
    return font is not None and (
        character == " " or bytes(font.getmask(character)) != bytes(font.getmask(NO_CHARACTER))
    )


@functools.lru_cache(maxsize=4096)
def _writable(text: str, instead: str) -> tuple[str, str | None]:
    """The text and the font that has all of it; without its accents, or ``instead`` of it, where none has."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split()) or instead
    unaccented = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    for candidate in (text, unaccented):
        for name in (None, *SYSTEM_FONTS):
            if all(_has(name, character) for character in set(candidate)):
                return candidate, name
    return instead, None


@functools.lru_cache(maxsize=4096)
def fit(text: str, size: int, width: float = math.inf, instead: str = "?") -> tuple[str, Font]:
    """A text as it can be drawn, and the font to draw it with.

    Args:
        text: anything; control characters become spaces.
        size: of the letters, in pixels.
        width: the text is cut to so many pixels, with "..." at its end.
        instead: drawn where no font at hand has the characters; ASCII.
    """
    text, name = _writable(text, instead)
    font = _font(name, size) or ImageFont.load_default(size)
    if font.getlength(text) <= width:
        return text, font
    low, high = 0, len(text)  # the longest beginning that fits
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle] + "...") <= width else (low, middle - 1)
    return text[:low].rstrip() + "...", font


def length(text: str, size: int, width: float = math.inf, instead: str = "?") -> float:
    """How many pixels wide `Canvas.text` writes a text."""
    shown, font = fit(text, size * SCALE, width * SCALE, instead)
    return font.getlength(shown) / SCALE


class Canvas:
    """A white image to draw on; every measure is in pixels of the finished image."""

    def __init__(self, width: float, height: float) -> None:
        """Begin an empty image."""
        self.size = (max(1, round(width)), max(1, round(height)))
        self.image = Image.new("RGB", (self.size[0] * SCALE, self.size[1] * SCALE), PAPER)
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
        instead: str = "?",
    ) -> None:
        """Write at a point; ``anchor`` says which part of the text lies there, as Pillow has it."""
        shown, font = fit(text, size * SCALE, width * SCALE, instead)
        self._draw.text((at[0] * SCALE, at[1] * SCALE), shown, fill=color, font=font, anchor=anchor)

    def upward(self, at: tuple[float, float], text: str, width: float, instead: str = "?") -> None:
        """Write a text that reads upwards and ends, with its right edge, at a point; it is centred sideways."""
        shown, font = fit(text, TEXT * SCALE, width * SCALE, instead)
        tall = 2 * TEXT * SCALE
        strip = Image.new("L", (math.ceil(font.getlength(shown)) + 2, tall))
        ImageDraw.Draw(strip).text((0, tall / 2), shown, fill=255, font=font, anchor="lm")
        turned = strip.rotate(90, expand=True)
        place = (round(at[0] * SCALE - turned.width / 2), round(at[1] * SCALE))
        self.image.paste(INK, place, turned)

    def line(self, points: Points, color: Color, width: float = LINE) -> None:
        """A line through points, which the finished image has smooth."""
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        self._draw.line(scaled, fill=color, width=round(width * SCALE), joint="curve")

    def dot(self, at: tuple[float, float], color: Color, radius: float = DOT) -> None:
        """A filled circle."""
        x, y, r = at[0] * SCALE, at[1] * SCALE, radius * SCALE
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=color)

    def box(
        self, left: float, top: float, right: float, bottom: float, color: Color, outline: Color | None = None
    ) -> None:
        """A filled rectangle."""
        self._draw.rectangle(
            (left * SCALE, top * SCALE, max(left, right) * SCALE, max(top, bottom) * SCALE), color, outline
        )


@dataclass(frozen=True)
class Axes:
    """A part of a canvas whose edges stand for numbers."""

    canvas: Canvas
    left: float
    top: float
    right: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies on the canvas."""
        (x0, x1), (y0, y1) = self.x_range, self.y_range
        return (
            self.left + (x - x0) / (x1 - x0) * (self.right - self.left),
            self.bottom - (y - y0) / (y1 - y0) * (self.bottom - self.top),
        )

    def frame(self, title: str, x_title: str = "", whole_x: bool = False) -> None:
        """The title, the grid, and the numbers along both edges."""
        canvas = self.canvas
        if title:
            canvas.text((self.left, self.top - 16), title, size=TITLE)
        for y in ticks(*self.y_range, max(2, round((self.bottom - self.top) / 32))):
            at = self.place(self.x_range[0], y)
            canvas.line([at, (self.right, at[1])], GRID, 1)
            canvas.text((self.left - 8, at[1]), number(y), "rm", color=MUTED)
        for x in ticks(*self.x_range, max(2, round((self.right - self.left) / 90))):
            if whole_x and x != int(x):
                continue
            at = self.place(x, self.y_range[0])
            canvas.line([(at[0], at[1]), (at[0], at[1] + 4)], MUTED, 1)
            canvas.text((at[0], at[1] + 14), number(x), "mm", color=MUTED)
        canvas.line([(self.left, self.bottom), (self.right, self.bottom)], MUTED, 1)
        if x_title:
            canvas.text(((self.left + self.right) / 2, self.bottom + 34), x_title, "mm", color=MUTED)

    def curve(self, points: Points, color: Color, width: float = LINE) -> None:
        """A line through the points, broken where a number is not finite; dots where they are few."""
        finite = [all(map(math.isfinite, point)) for point in points]
        run: list[tuple[float, float]] = []
        few = sum(finite) <= 20
        for point, good in [*zip(points, finite, strict=True), ((0.0, 0.0), False)]:
            if good:
                run.append(self.place(*point))
                continue
            if len(run) > 1:
                self.canvas.line(run, color, width)
            for at in run if few or len(run) == 1 else []:
                self.canvas.dot(at, color)
            run = []


def ticks(low: float, high: float, about: int) -> list[float]:
    """About so many round numbers from ``low`` to ``high``, one, two or five times a power of ten apart."""
    step = _step((high - low) / max(1, about))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * k for k in (1, 2, 5, 10) if power * k >= rough * 0.999)


def span(values: Sequence[float], zero: bool = False) -> tuple[float, float]:
    """A range that holds all finite values with a little room; 0..1 where there are none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    low = min(low, 0.0) if zero else low
    room = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    return (low if zero and low == 0 else low - room), high + room


def number(value: float) -> str:
    """A number as short as it can be read: 0.25, 1200, 1.5M, 3e-05."""
    if value == 0 or abs(value) < 1e-15:
        return "0"
    if abs(value) >= 1e6:
        return f"{value / 1e6:.6g}M"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def save_image(path: Path, image: Image.Image) -> None:
    """Write an image as PNG, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path) as partial:
        image.save(partial, format="PNG")
