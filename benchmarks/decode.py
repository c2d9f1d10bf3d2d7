"""Speed of exact and fast decoding, and the difference of their pixels.

    python benchmarks/decode.py IMAGES... [--enlarge 4000] [--size 224] [--repeats 5]

With --enlarge, every image is first resized to a JPEG with that long side in pixels: fast decoding does not help
with small images.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image

from mlx_aimv2.processing.decode import DecodeOptions
from mlx_aimv2.processing.image import ImageProcessor
from mlx_aimv2.processing.image_config import CLIP_STD, ImageProcessorConfig


def milliseconds(processor, data, repeats):
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        processor(data)
        seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def enlarged(path, longest):
    with Image.open(path) as image:
        image = image.convert("RGB")
    factor = longest / max(image.size)
    stream = io.BytesIO()
    image.resize([round(side * factor) for side in image.size], Image.Resampling.LANCZOS).save(
        stream, "jpeg", quality=92
    )
    return stream.getvalue()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--enlarge", type=int)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    config = ImageProcessorConfig.default(arguments.size)
    exact, fast = (ImageProcessor(config, decode=DecodeOptions(decode=mode)) for mode in ("exact", "fast"))
    scale = 255 * np.array(CLIP_STD)  # from normalized values back to 0..255
    print(f"{'image':24} {'exact ms':>9} {'fast ms':>9} {'times':>6} {'mean error':>11} {'largest':>8}")
    for path in arguments.images:
        data = enlarged(path, arguments.enlarge) if arguments.enlarge else path.read_bytes()
        error = np.abs(exact(data) - fast(data)) * scale
        slow, quick = (milliseconds(processor, data, arguments.repeats) for processor in (exact, fast))
        print(
            f"{path.name:24} {slow:9.1f} {quick:9.1f} {slow / quick:6.1f} {error.mean():11.2f} {error.max():8.1f}"
        )


if __name__ == "__main__":
    main()
