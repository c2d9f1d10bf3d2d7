"""A first pass that opens every image of a data set and leaves out those that cannot be opened."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

import numpy as np

from ..errors import InputError
from ..events import Notice, OnEvent, Progress, Skipped, warn
from ..messages import counted
from ..processing.image import ImageProcessor
from ..sources.readahead import DEFAULT_THREADS, Failed, read_ahead
from .labelled import Dataset, check_trainable
from .rows import SPLITS
from .splits import Item, Splits

NAMED = 20  # images that cannot be used, before the others are only counted
STAGE = "checking images"
Data = TypeVar("Data", bound=Splits[Item])


def scan(
    dataset: Data,
    image_processor: ImageProcessor,
    on_event: OnEvent = warn,
    threads: int = DEFAULT_THREADS,
) -> Data:
    """The dataset without the images that cannot be opened.

    Args:
        dataset: from `read_dataset` or `read_captions`.
        image_processor: the image processor of the training, with its decoder.
        on_event: gets `Skipped` for the first broken images, one for all others, and `Progress`.
        threads: images opened at once.

    Raises:
        InputError: a split has no image left, or a class no training image.
    """

    def opened(item: Item) -> np.ndarray:
        image_processor(item.image)
        return np.zeros((1, 1, 1), dtype=np.float32)  # in place of the pixels, which are not needed

    images = dataset.images()
    broken: dict[str, Skipped] = {}
    on_event(Progress(STAGE, 0, len(images)))
    with closing(read_ahead(images, opened, threads)) as results:
        for result in results:
            if isinstance(result, Failed):
                path = images[result.index].path
                broken[path] = Skipped.of(path, result.error)
                if len(broken) <= NAMED:
                    on_event(broken[path])
            on_event(Progress(STAGE, result.index + 1, len(images)))
    for skipped in first_skipped(list(broken.values()), dataset.root)[NAMED:]:
        on_event(skipped)
    left = {split: tuple(x for x in dataset.split(split) if x.path not in broken) for split in SPLITS}
    for split in SPLITS:
        if dataset.split(split) and not left[split]:
            count = counted(len(dataset.split(split)), "image")
            raise InputError(
                f"no image of the {split} split of {dataset.root} can be read ({count}): replace them"
            )
    unusable = (*dataset.skipped, *broken.values())
    checked = replace(dataset, train=left["train"], val=left["val"], test=left["test"], skipped=unusable)
    if isinstance(checked, Dataset):
        check_trainable(checked)
    return checked


def announce(dataset: Splits[Item], on_event: OnEvent) -> None:
    """Report what the reading of a dataset left out, as events."""
    for notice in dataset.notices:
        on_event(Notice(notice))
    for skipped in first_skipped(dataset.skipped, dataset.root):
        on_event(skipped)


def first_skipped(skipped: Sequence[Skipped], source: str) -> list[Skipped]:
    """The first 20 images, and one event for all others."""
    if len(skipped) <= NAMED + 1:
        return list(skipped)
    rest = len(skipped) - NAMED
    return [*skipped[:NAMED], Skipped(source, f"{rest:,} more images that cannot be used", rest)]
