"""Sample images of coloured shapes, drawn with Pillow; the same for the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

COLORS = {"red": "#d62828", "green": "#2a9d4a", "blue": "#2563c9", "yellow": "#f2c230", "purple": "#7b3fb5"}
GROUNDS = ("#f4f1ea", "#d8dee6", "#e9e2d0", "#cfd8cf")
SHAPES = ("circle", "square", "triangle")


@dataclass(frozen=True)
class Drawing:
    """An image and its caption."""

    image: Image.Image
    caption: str  # such as `a red circle`


def draw(count: int, seed: int = 0, size: tuple[int, int] = (320, 240)) -> list[Drawing]:
    """``count`` drawings of one shape each, ``size`` (width, height) in pixels."""
    rng = random.Random(seed)
    kinds = [(color, shape) for color in COLORS for shape in SHAPES]
    rng.shuffle(kinds)
    return [_draw_one(rng, *kinds[number % len(kinds)], size) for number in range(count)]


def _draw_one(rng: random.Random, color: str, shape: str, size: tuple[int, int]) -> Drawing:
    image = Image.new("RGB", size, rng.choice(GROUNDS))
    pen = ImageDraw.Draw(image)
    radius = rng.uniform(0.2, 0.4) * min(size)
    x = rng.uniform(radius, size[0] - radius)
    y = rng.uniform(radius, size[1] - radius)
    if shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=COLORS[color])
    else:
        sides = 4 if shape == "square" else 3
        pen.regular_polygon((x, y, radius), sides, rotation=rng.randrange(360), fill=COLORS[color])
    return Drawing(image, f"a {color} {shape}")
