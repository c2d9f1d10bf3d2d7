"""Image files to pixel values."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from data import photo_paths, photos
from suite import Case, Family, Result, Setup, Side
from timing import repeated

FILES = ((1, "jpg"), (12, "jpg"), (48, "jpg"), (12, "heic"), (12, "thumbnail.heic"))
FORMATS = {"jpg": "JPEG", "heic": "HEIC", "thumbnail.heic": "HEIC with a thumbnail"}
FOLDER = 8  # files
PILLOW, TORCHVISION = "CLIPImageProcessorPil", "CLIPImageProcessor"
SIZE, MEAN, STD = 224, [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def our_processor(mode: str) -> Any:
    """This package's, for images of 224 pixels."""
    from mlx_aimv2.processing.decode import DecodeOptions
    from mlx_aimv2.processing.image import ImageProcessor, ImageProcessorConfig

    return ImageProcessor(ImageProcessorConfig.default(SIZE), decode=DecodeOptions(decode=mode))


def mlx(setup: Setup, megapixels: int, extension: str, mode: str) -> Result:
    """One file. The cosine is that of the pixels with those of exact decoding."""
    import numpy as np

    processor = our_processor(mode)
    path = photo_paths(setup, megapixels, extension)[0]
    exact, pixels = our_processor("exact")(path).ravel(), processor(path).ravel()
    cosine = float(exact @ pixels / np.linalg.norm(exact) / np.linalg.norm(pixels))
    samples = repeated(setup, lambda: processor(path), most=10, budget_s=2)
    return {"timings": {"": samples}, "values": {"cosine": cosine}}


def mlx_folder(setup: Setup) -> Result:
    """A folder as the commands read it: fast, in threads."""
    from mlx_aimv2.sources.readahead import read_ahead

    processor, paths = our_processor("fast"), photo_paths(setup, 12, count=FOLDER)
    run = lambda: sum(1 for _ in read_ahead(paths, processor))  # noqa: E731
    return {"timings": {"": repeated(setup, run)}, "values": {}}


def their_processor(kind: str) -> Any:
    """transformers', with AIMv2's settings."""
    import transformers as library

    return getattr(library, kind)(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=MEAN,
        image_std=STD,
    )


def transformers(setup: Setup, megapixels: int, extension: str, kind: str) -> Result:
    """One file."""
    from PIL import Image

    if extension.endswith("heic"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    processor, path = their_processor(kind), photo_paths(setup, megapixels, extension)[0]
    run = lambda: processor(images=Image.open(path), return_tensors="pt")  # noqa: E731
    return {"timings": {"": repeated(setup, run, most=10, budget_s=2)}, "values": {}}


def transformers_folder(setup: Setup, kind: str, in_threads: bool = False) -> Result:
    """A folder, one image after the other, or in a thread for each core."""
    from PIL import Image

    processor, paths = their_processor(kind), photo_paths(setup, 12, count=FOLDER)

    def convert(path: object) -> None:
        processor(images=Image.open(path), return_tensors="pt")

    def run() -> None:
        if in_threads:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(convert, paths))
        else:
            list(map(convert, paths))

    return {"timings": {"": repeated(setup, run)}, "values": {}}


def cases(setup: Setup) -> list[Case]:
    """Single files, then a folder."""
    variants = (("transformers, Pillow", PILLOW), ("transformers, torchvision", TORCHVISION))
    found = []
    for megapixels, extension in FILES:
        file = {"megapixels": megapixels, "extension": extension}
        sides = [Side(f"mlx-aimv2, {mode}", mlx, {**file, "mode": mode}) for mode in ("fast", "exact")]
        sides += [Side(name, transformers, {**file, "kind": kind}, is_peer=True) for name, kind in variants]
        name = f"{megapixels} megapixels, {FORMATS[extension]}"
        found.append(Case(name, tuple(sides), rounds=1, prepare=(photos(megapixels, extension),)))
    sides = [Side("mlx-aimv2, fast", mlx_folder)]
    for name, kind in variants:
        for suffix, in_threads in (("", False), (", in threads", True)):
            arguments = {"kind": kind, "in_threads": in_threads}
            rounds = None if kind == PILLOW else 1
            sides.append(Side(name + suffix, transformers_folder, arguments, is_peer=True, rounds=rounds))
    prepare = (photos(12, count=FOLDER),)
    return [*found, Case("folder of 12-megapixel JPEGs", tuple(sides), FOLDER, 3, prepare)]


FAMILY = Family(
    "decoding",
    "Image files to pixels",
    "A file to normalized pixels of 224 x 224. `exact` gives the pixels of transformers' Pillow path bit for bit,"
    " `fast` is the default of the command line. A folder is read with a thread for each core by mlx-aimv2.",
    cases,
)
