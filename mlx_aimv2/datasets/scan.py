"""The first pass over the images: every one is opened once, and the broken ones are left out by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

import numpy as np

from ..errors import InputError
from ..events import Notice, OnEvent, Progress, Skipped, ignore
from ..messages import counted
from ..processing.image import ImageProcessor
from ..sources.readahead import DEFAULT_THREADS, Failed, read_ahead
from .captioned import CaptionDataset, Captioned
from .labelled import Dataset, Example, check_trainable
from .rows import SPLITS

NAMED = 20  # images that cannot be used, before the others are only counted
Images = TypeVar("Images", Dataset, CaptionDataset)


def scan(
    dataset: Images,
    image_processor: ImageProcessor,
    on_event: OnEvent = ignore,
    threads: int = DEFAULT_THREADS,
) -> Images:
    """The dataset without the images that cannot be opened.

    Args:
        dataset: from `read_dataset` or `read_captions`.
        image_processor: the one that training will use, with its way of decoding.
        on_event: gets `Skipped` for the first broken images, one for all others, and `Progress`.
        threads: images opened at once.

    Raises:
        InputError: a split has no image left, or a class no training image.
    """
    examples: list[Example | Captioned] = [example for split in SPLITS for example in dataset.split(split)]
    broken: dict[str, Skipped] = {}
    on_event(Progress("checking images", 0, len(examples)))
    with closing(read_ahead(examples, _opening(image_processor), threads)) as results:
        for result in results:
            if isinstance(result, Failed):
                path = examples[result.index].path
                broken[path] = Skipped.of(path, result.error)
                if len(broken) <= NAMED:
                    on_event(broken[path])
            on_event(Progress("checking images", result.index + 1, len(examples)))
    for skipped in shortened(list(broken.values()), dataset.root)[NAMED:]:
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


def announce(dataset: Dataset | CaptionDataset, on_event: OnEvent) -> None:
    """Say what was left out of some data when it was read."""
    for notice in dataset.notices:
        on_event(Notice(notice))
    for skipped in shortened(dataset.skipped, dataset.root):
        on_event(skipped)


def shortened(skipped: Sequence[Skipped], source: str) -> list[Skipped]:
    """The first few, and one that stands for all the others."""
    if len(skipped) <= NAMED + 1:
        return list(skipped)
    rest = len(skipped) - NAMED
    return [*skipped[:NAMED], Skipped(source, f"{rest:,} more images that cannot be used", rest)]


def _opening(image_processor: ImageProcessor) -> Callable[[Example | Captioned], np.ndarray]:
    """Opens an image as training will, and keeps nothing of it."""

    def opened(example: Example | Captioned) -> np.ndarray:
        image_processor(example.path)
        return np.zeros((1, 1, 1), dtype=np.float32)

    return opened
