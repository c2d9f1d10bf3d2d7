"""The shapes as polygons, centred and fitted into the circle of diameter 1, and their masks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Polygon = NDArray[np.float64]  # (n, 2): x rightwards, y downwards

ROUND = 40  # corners of an arc


def _arc(radius: float, start: float, end: float, x: float = 0.0) -> Polygon:
    """An arc around (x, 0); angles in radians."""
    angles = np.linspace(start, end, ROUND)
    return np.stack([x + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _regular(sides: int, inner: float = 1.0) -> Polygon:
    """A regular polygon with a corner at the top; with ``inner`` < 1 a star with that inner radius."""
    corners = sides if inner == 1.0 else 2 * sides
    angles = np.arange(corners) * 2 * math.pi / corners - math.pi / 2
    radii = np.where(np.arange(corners) % 2, inner, 1.0)[:, None]
    return radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _heart() -> Polygon:
    t = np.linspace(0, 2 * math.pi, ROUND)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1)


def _crescent() -> Polygon:
    """A disc of radius 1 without a disc of radius 0.8 to its right."""
    radius, x = 0.8, 0.56
    meeting = math.acos((1 + x * x - radius * radius) / (2 * x))
    inner = math.atan2(math.sin(meeting), math.cos(meeting) - x)
    return np.concatenate(
        [_arc(1, meeting, 2 * math.pi - meeting), _arc(radius, 2 * math.pi - inner, inner, x)]
    )


def _points(*points: tuple[float, float]) -> Polygon:
    return np.asarray(points, dtype=np.float64)


def _cross(arm: float) -> Polygon:
    quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    turned = [quarter]
    for _ in range(3):
        turned.append([(-y, x) for x, y in turned[-1]])
    return _points(*(point for corner in turned for point in corner))


def _fitted(polygon: Polygon) -> Polygon:
    """Centre a polygon on its bounding box, with its furthest corner at 0.5."""
    centred = polygon - (polygon.max(axis=0) + polygon.min(axis=0)) / 2
    return centred * (0.5 / np.hypot(*centred.T).max())


FILLED: dict[str, Polygon] = {
    name: _fitted(polygon)
    for name, polygon in {
        "circle": _arc(1, 0, 2 * math.pi),
        "square": _points((-1, -1), (1, -1), (1, 1), (-1, 1)),
        "triangle": _regular(3),
        "star": _regular(5, inner=0.46),
        "heart": _heart(),
        "cross": _cross(0.34),
        "ring": _arc(1, 0, 2 * math.pi),
        "crescent": _crescent(),
        "diamond": _points((0, -1), (0.56, 0), (0, 1), (-0.56, 0)),
        "arrow": _points((1, 0), (0.1, -0.85), (0.1, -0.3), (-1, -0.3), (-1, 0.3), (0.1, 0.3), (0.1, 0.85)),
        "semicircle": _arc(1, math.pi, 2 * math.pi),
        "hourglass": _points((-0.72, -1), (0.72, -1), (0.12, 0), (0.72, 1), (-0.72, 1), (-0.12, 0)),
    }.items()
}
HOLES: dict[str, Polygon] = {"ring": _arc(0.24, 0, 2 * math.pi)}


def shape_mask(
    shape: str, pixels: int, diameter: float, center: tuple[float, float], turn: float
) -> Image.Image:
    """The mask of a shape.

    Args:
        shape: one of `SHAPES`.
        pixels: side of the mask.
        diameter: of the circle around the shape, in pixels.
        center: (x, y) of the circle in pixels.
        turn: rotation, clockwise, in degrees.

    Returns:
        A square image in mode L: 255 inside the shape, else 0.
    """
    angle = math.radians(turn)
    rotation = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) * diameter
    mask = Image.new("L", (pixels, pixels))
    pen = ImageDraw.Draw(mask)
    for polygons, value in ((FILLED, 255), (HOLES, 0)):
        if shape in polygons:
            pen.polygon((polygons[shape] @ rotation + center).ravel().tolist(), fill=value)
    return mask
