"""Small images with captions on disk, which a small pair can learn to tell apart."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40), "white": (240, 240, 240)}
SIDES = ("top", "bottom")


def captioned(root: Path, each: int = 3, edge: int = 56) -> Path:
    """A table of noisy images, one half of each in a colour; the red ones have two captions each."""
    rng, rows = np.random.default_rng(0), []
    root.mkdir(parents=True)
    for colour, rgb in COLOURS.items():
        for side, place in zip(SIDES, (slice(0, edge // 2), slice(edge // 2, None)), strict=True):
            for number in range(each):
                pixels = np.full((edge, edge, 3), 20.0)
                pixels[place] = rgb
                pixels += rng.normal(0, 25, pixels.shape)
                name = f"{colour}-{side}-{number}.png"
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name)
                rows.append((name, f"{colour} at the {side}, number {number}"))
                if colour == "red":
                    rows.append((name, f"the {side} is red in number {number}"))
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "caption"), *rows])
    return root / "captions.csv"
