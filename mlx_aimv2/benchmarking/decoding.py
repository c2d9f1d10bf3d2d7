"""Speed of decoding images to pixels, in the threads that `embed` uses."""

from __future__ import annotations

import io
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError
from ..events import OnEvent, Skipped, warn
from ..processing.image import ImageProcessor
from ..sources.paths import find_images
from ..sources.readahead import DEFAULT_THREADS, Failed, read_ahead

WIDTH, HEIGHT, PARTS = 4000, 3000, 4  # of the drawn photo, and how often it repeats a part in a row
QUALITY, GRAIN = 90, 6.0  # of the JPEG, and of the noise: they give it 3 to 4 MB, as a camera does
MOST = 128  # images that are decoded
DRAWN = "a drawn photo of 12 megapixels"

Photo = str | bytes


@dataclass(frozen=True)
class Decoding:
    """The measurement of decoding, resizing and normalizing.

    Attributes:
        mode: `fast` or `exact`.
        images_per_second: rate of all threads together.
        images: number of decoded images.
        threads: number of threads.
    """

    mode: str
    images_per_second: float
    images: int
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return vars(self).copy()


def find_photos(names: Sequence[str]) -> list[Photo]:
    """The images that names stand for; without names, the drawn photo.

    Raises:
        InputError: there are none.
    """
    if not names:
        return [drawn_photo()]
    images = find_images(names).images
    if not images:
        raise InputError("no images to decode: name files, folders or patterns")
    return list(images)


def drawn_photo() -> bytes:
    """A JPEG of 12 megapixels with large shapes, edges and noise, about as large as that of a camera."""
    rng = np.random.default_rng(0)
    width, height = WIDTH // PARTS, HEIGHT // PARTS
    small = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    part = (smooth + rng.normal(0, GRAIN, smooth.shape)).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.tile(part, (PARTS, PARTS, 1))).save(stream, "jpeg", quality=QUALITY)
    return stream.getvalue()


def measure_decoding(
    photos: Sequence[Photo], processor: ImageProcessor, seconds: float, on_event: OnEvent = warn
) -> Decoding:
    """Decode images over and over until the time is used up.

    Args:
        photos: paths, or the bytes of files.
        processor: decodes exactly or fast.
        seconds: to decode; images that were begun are finished.
        on_event: called once with each image that cannot be decoded; it does not count.

    Raises:
        InputError: no image can be decoded.
    """
    broken: set[int] = set()
    list(read_ahead(_limited(photos, min(len(photos), DEFAULT_THREADS), seconds), processor))  # warms up
    start, count = time.perf_counter(), 0
    for item in read_ahead(_limited(photos, MOST, seconds), processor):
        number = item.index % len(photos)
        if not isinstance(item, Failed):
            count += 1
        elif number not in broken:
            broken.add(number)
            on_event(Skipped.of(str(photos[number]), item.error))
    rate = count / (time.perf_counter() - start)
    if not count:
        raise InputError("no image can be decoded: name others with --images")
    return Decoding(processor.decode.decode, rate, count, DEFAULT_THREADS)


def _limited(photos: Sequence[Photo], most: int, seconds: float) -> Iterator[Photo]:
    """The photos again and again, until there were ``most`` or the time is over; at least one."""
    end = time.perf_counter() + seconds
    for number, photo in enumerate(itertools.cycle(photos)):
        if number >= most or (number and time.perf_counter() > end):
            return
        yield photo
