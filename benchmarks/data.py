"""Checkpoints with random weights, and photograph-like images: what the sides read."""

from __future__ import annotations

import os
from pathlib import Path

from suite import QUICK_VISION, Result, Setup, Side

SIZES = {1: (1200, 900), 12: (4000, 3000), 48: (8000, 6000)}  # width and height in pixels, by megapixels
PHOTOS = 4  # different ones in a folder
LABELLED = 20  # images of two classes
CHECKPOINTS = {
    "large-224": {},
    "large-336": {"image_size": 336},
    "large-448": {"image_size": 448},
    "native": {"is_native": True},
    "native-tiny": {"is_native": True, **QUICK_VISION},
}


def checkpoint(name: str) -> Side:
    """Writes the checkpoint `setup.folder / name` in the layout of transformers, float32."""
    return Side(name, write_checkpoint, {"name": name})


def photos(megapixels: int, extension: str = "jpg", count: int = 1) -> Side:
    """Writes the images of `photo_paths`."""
    arguments = {"megapixels": megapixels, "extension": extension, "count": count}
    return Side("images", write_photos, arguments)


def photo_paths(setup: Setup, megapixels: int, extension: str = "jpg", count: int = 1) -> list[Path]:
    """``count`` files; they repeat `PHOTOS` different images."""
    folder = setup.folder / f"{megapixels}-megapixel-{extension}"
    return [folder / f"{number:03d}.{extension}" for number in range(count)]


def write_checkpoint(setup: Setup, name: str) -> Result:
    """Random weights; a file that is there is kept."""
    from drawn_world.untrained import write_checkpoint as write

    from mlx_aimv2 import Aimv2VisionConfig

    folder = setup.folder / name
    if not folder.exists():
        write(folder, Aimv2VisionConfig(**setup.vision(**CHECKPOINTS[name])), "transformers")
    return {"timings": {}, "values": {}}


def write_quantized(setup: Setup, name: str, bits: int) -> Result:
    """`setup.folder / f"{name}-{bits}bit"`, quantized from the checkpoint ``name``."""
    from mlx_aimv2 import convert

    target = setup.folder / f"{name}-{bits}bit"
    if not target.exists():
        convert(setup.folder / name, target, quantize=True, q_bits=bits, q_group_size=64)
    return {"timings": {}, "values": {}}


def write_photos(setup: Setup, megapixels: int, extension: str, count: int) -> Result:
    """Images with the spectrum of photographs and some noise, quality 90; a thumbnail has a sixth of the edges."""
    if extension.endswith("heic"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    width, height = SIZES[megapixels]
    if setup.quick:
        width, height = width // 10, height // 10
    paths = photo_paths(setup, megapixels, extension, count)
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            continue
        if number < PHOTOS:
            thumbnail = {"thumbnails": [width // 6]} if extension == "thumbnail.heic" else {}
            photo(width, height, number).save(path, quality=90, **thumbnail)
        else:
            os.link(paths[number % PHOTOS], path)
    return {"timings": {}, "values": {}}


def write_labelled(setup: Setup) -> Result:
    """`setup.folder / "labelled"`: small images in a folder for each of two classes."""
    for number in range(LABELLED):
        path = setup.folder / "labelled" / "ab"[number % 2] / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            photo(256, 256, number).save(path)
    return {"timings": {}, "values": {}}


def photo(width: int, height: int, seed: int):
    """A PIL image: the sum of noises of all scales, each as strong as it is coarse, and grain."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), dtype=np.float32)
    scale = 1 << 11
    while scale >= 2:
        small = random.integers(0, 256, (height // scale + 2, width // scale + 2, 3), dtype=np.uint8)
        noise = Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)
        total += np.asarray(noise, dtype=np.float32) * (scale / (1 << 12))
        scale //= 2
    total += random.normal(0, 4, (height, width, 1)).astype(np.float32)
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))


def sample_image(setup: Setup) -> str:
    """The path of a small photograph."""
    return str(photo_paths(setup, 1)[0])
