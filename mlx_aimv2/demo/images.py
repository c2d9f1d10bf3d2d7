"""A dozen sample images with their captions and labels, as JPEG files inside the package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

FOLDER = Path(__file__).parent / "images"
CAPTIONS = Path(__file__).parent / "captions.json"
SHAPES = (
    *("circle", "square", "triangle", "star", "heart", "cross"),
    *("ring", "crescent", "diamond", "arrow", "semicircle", "hourglass"),
)
COLORS = ("red", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "black", "white")
LABELS = tuple(f"{color} {shape}" for shape in SHAPES for color in COLORS)


@dataclass(frozen=True)
class SampleImage:
    """A drawing of coloured shapes, 224 pixels wide and high.

    `examples/drawn_world/sample_images.py` in the repository draws all of them.

    Attributes:
        path: a JPEG file.
        caption: a sentence that describes the whole image.
        labels: the correct labels, all in ``LABELS``: one for each kind of shape on the image.
    """

    path: Path
    caption: str
    labels: tuple[str, ...]

    def open(self) -> Image.Image:
        """The image in mode RGB."""
        with Image.open(self.path) as image:
            return image.convert("RGB")


def sample_images() -> list[SampleImage]:
    """All sample images in the order of their file names."""
    entries = json.loads(CAPTIONS.read_text(encoding="utf-8"))
    return [
        SampleImage(FOLDER / entry["file"], entry["caption"], tuple(entry["labels"])) for entry in entries
    ]
