"""A folder of large photographs to vectors, against its two parts."""

from __future__ import annotations

import ours
from data import checkpoint, photo_paths, photos
from suite import Case, Family, Result, Setup, Side
from timing import repeated, seconds

NAME, FILES = "large-224", 16


def end_to_end(setup: Setup) -> Result:
    """`Embedder` on files."""
    from mlx_aimv2 import Embedder

    embedder = Embedder(*ours.load_model(setup, NAME))
    paths = photo_paths(setup, 12, count=FILES)
    embedder.images(paths[:2])
    return {"timings": {"": [seconds(lambda: embedder.images(paths))]}, "values": {}}


def computing(setup: Setup) -> Result:
    """`Embedder` on images of 224 pixels in memory."""
    import numpy as np

    from mlx_aimv2 import Embedder

    embedder = Embedder(*ours.load_model(setup, NAME))
    small = np.random.default_rng(0).integers(0, 256, (FILES, 224, 224, 3), dtype=np.uint8)
    embedder.images(list(small[:2]))
    return {"timings": {"": [seconds(lambda: embedder.images(list(small)))]}, "values": {}}


def decoding(setup: Setup) -> Result:
    """The same files to pixels."""
    from mlx_aimv2.sources.readahead import read_ahead

    _, processor = ours.load_model(setup, NAME)
    paths = photo_paths(setup, 12, count=FILES)
    run = lambda: sum(1 for _ in read_ahead(paths, processor.image_processor))  # noqa: E731
    return {"timings": {"": repeated(setup, run, most=3)}, "values": {}}


def cases(setup: Setup) -> list[Case]:
    """One case."""
    sides = (
        Side("end to end", end_to_end),
        Side("computing alone", computing),
        Side("decoding alone", decoding),
    )
    return [Case("12-megapixel JPEGs", sides, FILES, 2, (checkpoint(NAME), photos(12, count=FILES)))]


FAMILY = Family(
    "folder",
    "Folder to vectors",
    f"{FILES} JPEGs of 12 megapixels to vectors of large-224 with fast decoding, without loading the model.",
    cases,
)
