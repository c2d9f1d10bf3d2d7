"""Very many JPEGs to a folder of vectors: the rate, the memory over time, and the stages alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from data import photo
from suite import HERE, Case, Family, Result, Setup, Side
from timing import seconds

from cases.decoding import PILLOW, TORCHVISION

MANY, FEW = 20_000, 1_000
QUICK = 20  # images, to try the suite itself
LARGE_EVERY = 10  # every tenth image has 12 megapixels
LARGE, SMALL = (4000, 3000), ((640, 480), (1024, 768), (1600, 1200), (480, 640), (800, 800), (320, 240))
DIFFERENT_LARGE, DIFFERENT_SMALL = 20, 180  # the others are links to these
DRAWN_EVERY = 3  # every third small image is a drawing
BATCH = 32  # images, of the peer
COMPUTED = 64  # different images, of computing alone
MOMENTS = 20  # at which memory is kept
CHECKPOINT = HERE.parent / "mlx_aimv2" / "demo" / "checkpoint"


def image_paths(setup: Setup, count: int) -> list[Path]:
    """``count`` files."""
    folder = setup.folder / f"many-{count}"
    return [folder / f"{number // 1000:02d}" / f"{number:05d}.jpg" for number in range(count)]


def write_images(setup: Setup, count: int) -> Result:
    """Photographs and drawings of mixed sizes; those that are there are kept."""
    sources = setup.folder / "many-sources"
    sources.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(image_paths(setup, count)):
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        is_large = number % LARGE_EVERY == 0
        kind = (number // LARGE_EVERY) % DIFFERENT_LARGE if is_large else number % DIFFERENT_SMALL
        source = sources / f"{'large' if is_large else 'small'}-{kind:03d}.jpg"
        if not source.exists():
            _image(setup, kind, is_large).save(source, quality=90)
        os.link(source, path)
    return {"timings": {}, "values": {}}


def _image(setup: Setup, kind: int, is_large: bool) -> Any:
    width, height = LARGE if is_large else SMALL[kind % len(SMALL)]
    if setup.quick:
        width, height = width // 10, height // 10
    if is_large or kind % DRAWN_EVERY:
        return photo(width, height, kind)
    from PIL import Image, ImageDraw

    drawing = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(drawing)
    for place in range(12):
        left, top = (kind * 37 + place * 71) % width, (kind * 53 + place * 43) % height
        color = tuple((kind * 29 + place * step) % 256 for step in (61, 97, 151))
        (pen.ellipse, pen.rectangle)[place % 2]((left, top, left + width // 4, top + height // 4), fill=color)
    return drawing


def end_to_end(setup: Setup, count: int, mode: str) -> Result:
    """The command line, from its start to its end; its memory in MB is kept at `MOMENTS` even moments."""
    folder, output = image_paths(setup, count)[0].parent.parent, setup.folder / f"vectors-{count}-{mode}"
    command = [sys.executable, "-m", "mlx_aimv2", "embed", str(folder), "-o", f"{output}/", "--force"]
    start, memory = time.perf_counter(), list[float]()
    log = setup.folder / "embed.log"
    with log.open("w") as file:
        process = subprocess.Popen([*command, "--model", "demo", "--decode", mode], stdout=file, stderr=file)
        while process.poll() is None:
            rss = subprocess.run(["ps", "-o", "rss=", "-p", str(process.pid)], capture_output=True, text=True)
            memory += [int(rss.stdout) / 1000] if rss.stdout.strip() else []
            time.sleep(0.05 if setup.quick else 0.5)
    duration = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(log.read_text()[-300:])
    kept = [memory[round(x * (len(memory) - 1) / (MOMENTS - 1))] for x in range(MOMENTS)]
    values = {"peak MB of the command": max(memory), **{f"MB at {x}": mb for x, mb in enumerate(kept)}}
    return {"timings": {"": [duration]}, "values": values}


def _embedder(mode: str) -> Any:
    from mlx_aimv2 import DecodeOptions, Embedder, load
    from mlx_aimv2.loading import LoadOptions

    return Embedder(*load("demo", options=LoadOptions(decode=DecodeOptions(decode=mode))))


def decoding(setup: Setup, count: int, mode: str) -> Result:
    """The same files to pixels."""
    from mlx_aimv2.sources.readahead import read_ahead

    processor, paths = _embedder(mode).processor.image_processor, image_paths(setup, count)
    return {"timings": {"": [seconds(lambda: sum(1 for _ in read_ahead(paths, processor)))]}, "values": {}}


def computing(setup: Setup, count: int) -> Result:
    """As many small images in memory to vectors."""
    import numpy as np

    embedder = _embedder("fast")
    size = embedder.processor.image_processor.output_size(1, 1)
    images = list(np.random.default_rng(0).integers(0, 256, (COMPUTED, *size, 3), dtype=np.uint8))
    embedder.images(images)  # compiles
    many = [images[number % COMPUTED] for number in range(count)]
    return {"timings": {"": [seconds(lambda: sum(1 for _ in embedder.stream(many)))]}, "values": {}}


def writing(setup: Setup, count: int) -> Result:
    """As many vectors to a folder of shards."""
    import shutil

    import numpy as np

    from mlx_aimv2.vectors.options import WriterOptions
    from mlx_aimv2.vectors.writer import open_writer

    output, embedder = setup.folder / "written", _embedder("fast")
    names = [str(path) for path in image_paths(setup, count)]
    vector = np.ones(embedder.dimension, dtype=np.float32)
    shutil.rmtree(output, ignore_errors=True)

    def run() -> None:
        writer = open_writer(f"{output}/", embedder.fingerprint, WriterOptions(), lambda event: None)
        for place in writer.remaining(names):
            writer.add(names[place], vector)
        writer.close()

    return {"timings": {"": [seconds(run)]}, "values": {}}


def transformers(setup: Setup, count: int, kind: str) -> Result:
    """A loop over the image processor and a model of the same size, in batches."""
    import torch
    import transformers as library
    from PIL import Image

    config = json.loads((CHECKPOINT / "config.json").read_text())["vision_config"]
    model = library.Aimv2VisionModel(library.Aimv2VisionConfig(**config)).eval()
    edge = config["image_size"]
    processor = getattr(library, kind)(
        size={"shortest_edge": edge}, crop_size={"height": edge, "width": edge}
    )
    paths = image_paths(setup, count)

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, len(paths), BATCH):
                images = [Image.open(path).convert("RGB") for path in paths[start : start + BATCH]]
                model(**processor(images=images, return_tensors="pt")).pooler_output.numpy()

    return {"timings": {"": [seconds(run)]}, "values": {}}


def cases(setup: Setup) -> list[Case]:
    """Many images with the stages alone, and fewer beside transformers."""
    many, few = (QUICK, QUICK) if setup.quick else (MANY, FEW)

    def both(function: Any, name: str, count: int) -> list[Side]:
        return [
            Side(f"{name}, {mode}", function, {"count": count, "mode": mode}) for mode in ("fast", "exact")
        ]

    stages = [
        *both(end_to_end, "embed", many),
        *both(decoding, "decoding alone", many),
        Side("computing alone", computing, {"count": many}),
        Side("writing alone", writing, {"count": many}),
    ]
    beside = both(end_to_end, "embed", few)
    for name, kind in (("transformers, Pillow", PILLOW), ("transformers, torchvision", TORCHVISION)):
        beside.append(Side(name, transformers, {"count": few, "kind": kind}, is_peer=True))
    return [
        Case(
            f"{count:,} images{note}",
            tuple(sides),
            count,
            1,
            (Side("images", write_images, {"count": count}),),
        )
        for count, note, sides in ((many, "", stages), (few, " beside transformers", beside))
    ]


FAMILY = Family(
    "many",
    "Very many photographs",
    "JPEGs of mixed sizes, a tenth of them with 12 megapixels, photographs and drawings, to a folder of vectors of"
    " the checkpoint in the package: the whole command, and its stages alone. transformers"
    " computes with a model of the same size.",
    cases,
)
