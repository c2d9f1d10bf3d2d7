"""Loops over the results of a stream: skip and name broken images, raise on NaN, report progress, collect vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..errors import ImageError, InputError, NonFiniteError
from ..events import OnEvent, Progress, Skipped, warn
from ..sources.readahead import Failed
from .stream import Embedded

Result = TypeVar("Result")


@dataclass(frozen=True)
class Collected:
    """The vectors of some images.

    Attributes:
        indices: the numbers of the images that have a vector, in order.
        vectors: (N, ...) float32; row k belongs to image ``indices[k]``.
        skipped: the images that cannot be read, and why.
    """

    indices: list[int]
    vectors: np.ndarray
    skipped: tuple[Skipped, ...]


def collect(
    results: Iterable[Embedded | Failed], names: Sequence[str], stage: str, on_event: OnEvent = warn
) -> Collected:
    """Collect the vectors of images; skip images that cannot be read.

    Args:
        results: one for each image, in order.
        names: of the images.
        stage: of the progress events.
        on_event: called with progress, and with each skipped image.

    Raises:
        NonFiniteError: the model's output for an image is not finite; the message names the image.
        InputError: no image can be read.
    """
    indices, vectors, skipped = [], [], list[Skipped]()
    on_event(Progress(stage, 0, len(names)))
    for result in results:
        if not isinstance(result, Failed):
            indices.append(result.index)
            vectors.append(result.vector)
        elif isinstance(result.error, NonFiniteError):  # metrics without this image would not be the model's
            raise result.error.at(names[result.index]) from result.error
        else:
            skipped.append(Skipped.of(names[result.index], result.error))
            on_event(skipped[-1])
        on_event(Progress(stage, result.index + 1, len(names)))
    if not vectors:
        raise InputError(f"none of {len(names)} images can be read, the first because {skipped[0].reason}")
    return Collected(indices, np.stack(vectors), tuple(skipped))


def mapped(
    results: Iterable[Embedded | Failed], compute: Callable[[Embedded], Result]
) -> Iterator[Result | Failed]:
    """Pass failures on, and ``compute`` something else from each vector."""
    for item in results:
        yield item if isinstance(item, Failed) else compute(item)


def require(results: Iterable[Result | Failed], name: Callable[[int], str] | None = None) -> Iterator[Result]:
    """Pass results on, and raise the first error among them.

    Args:
        results: in order.
        name: from the number of an item to its name in the message; None for a lone item, which needs no name.
    """
    for result in results:
        if isinstance(result, Failed):
            error = result.error
            if name is None or not isinstance(error, (ImageError, NonFiniteError)):
                raise error
            raise error.at(name(result.index)) from error
        yield result
