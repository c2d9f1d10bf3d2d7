"""Verbs over regions of images: their arguments, and what is said about boxes in the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from ..errors import InputError
from ..events import Notice, OnEvent
from ..messages import counted
from ..sources.options import CropOptions

Result = TypeVar("Result")


def check_named(inputs: Sequence[str] | None, regions: CropOptions, verb: str) -> Sequence[str]:
    """The arguments of a verb; a file of boxes may name the images in their place.

    Raises:
        InputError: there are neither arguments nor a file of boxes.
    """
    if not inputs and regions.boxes is None:
        raise InputError(f"Missing argument 'IMAGES...'; see `mlx-aimv2 {verb} --help`")
    return inputs or ()


def noting_clipped(stream: Iterable[Result], images: Sequence[object], on_event: OnEvent) -> Iterator[Result]:
    """Pass the results of images on, then say how many boxes reach beyond their image."""
    from ..processing.crops import count_clipped, expect

    expect(images)
    yield from stream
    if count := count_clipped(images):
        reach = "reaches" if count == 1 else "reach"
        on_event(Notice(f"{counted(count, 'box')} {reach} beyond the image: cut at its edge"))
