"""Buffers and streams of mlx-data as images, with their names, labels and captions."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import ImageError, InputError
from .mlx_data_package import mlx_data
from .source_image import SourceImage

LONGEST_PATH = 4096  # bytes
IMAGE, LABEL, ID, CAPTION = "image", "label", "id", "caption"
Sample = dict[str, Any]


class Samples(Sequence[SourceImage]):
    """The images of an `mlx.data.Buffer`, fetched when they are asked for, from any thread.

    Attributes:
        ids: the names of the images that were fetched; others have their number as a name.
        labels: the labels of the images that were fetched and have some: numbers, or names.
        captions: likewise the captions.
    """

    def __init__(self, buffer: Any) -> None:
        self._buffer = buffer
        self.ids: dict[int, str] = {}
        self.labels: dict[int, tuple[int, ...] | tuple[str, ...]] = {}
        self.captions: dict[int, tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._buffer)

    def __getitem__(self, number: int) -> SourceImage:  # type: ignore[override]  # no slices
        """Fetch a sample.

        Raises:
            ImageError: an operation of the buffer fails, or the sample has no image.
            InputError: its name or labels are of another type than is documented.
        """
        name = self.ids.get(number, numbered(number))
        try:
            sample = self._buffer[number]
        except IndexError:
            raise
        except Exception as error:  # whatever a Python function in the buffer raises
            raise ImageError(_reason(error), place=name) from error
        image = image_of(sample, name)
        self.ids[number] = image.id
        if LABEL in sample:
            self.labels[number] = labels_of(sample[LABEL], image.id)
        if CAPTION in sample:
            lines = text_of(sample[CAPTION], image.id).splitlines()
            self.captions[number] = tuple(dict.fromkeys(line for line in lines if line.strip()))
        return image


class SampleNames(Sequence[str]):
    """The names of samples, known once they were fetched; until then their numbers."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> str:  # type: ignore[override]  # no slices
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self._samples.ids.get(number, numbered(number))


def numbered(number: int) -> str:
    """The name of a sample without one."""
    return f"sample {number}"


def is_buffer(images: object) -> bool:
    """Whether an object is an `mlx.data.Buffer`."""
    module = sys.modules.get("mlx.data")  # without it nothing is one
    return module is not None and isinstance(images, module.Buffer)


def has_samples(images: object) -> bool:
    """Whether an object is a Buffer or a Stream of mlx-data."""
    return is_buffer(images) or is_stream(images)


def is_stream(images: object) -> bool:
    """Whether an object is an `mlx.data.Stream`."""
    module = sys.modules.get("mlx.data")
    return module is not None and isinstance(images, module.Stream)


def samples_of(buffer: Any) -> Samples:
    """The images of a buffer.

    Raises:
        InputError: it is a stream, whose samples can be fetched only once.
    """
    if is_stream(buffer):
        raise InputError("a Stream can only be embedded: give a Buffer, such as stream.to_buffer()")
    mlx_data("a Buffer")
    return Samples(buffer)


def stream_images(stream: Iterable[Sample]) -> Iterator[SourceImage]:
    """The images of an `mlx.data.Stream`, in its order.

    Raises:
        ImageError: an operation of the stream fails, or a sample has no image.
    """
    mlx_data("a Stream")
    samples, number = iter(stream), 0
    while True:
        try:
            sample = next(samples)
        except StopIteration:
            return
        except Exception as error:
            raise ImageError(f"{numbered(number)}: {_reason(error)}") from error
        yield image_of(sample, numbered(number))
        number += 1


def image_of(sample: Sample, name: str) -> SourceImage:
    """The image of a sample, with its id as its name.

    Args:
        sample: has an ``image``: pixels (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or the bytes of a path or a file.
        name: for a sample without an ``id``.

    Raises:
        ImageError: it has no image.
        InputError: its id is not a text or a number.
    """
    own = sample.get(ID)
    if own is not None:
        name = text_of(own, name) if np.ndim(own) else str(np.asarray(own).item())
    if IMAGE not in sample:
        keys = ", ".join(sorted(sample)) or "none"
        raise ImageError(f"{name}: a sample needs the key image, and has {keys}: rename_key gives it")
    x = np.asarray(sample[IMAGE])
    content: Any = x
    if x.ndim == 1:
        content = x.tobytes()
        if len(content) <= LONGEST_PATH and b"\0" not in content:  # which every image file has
            content = os.fsdecode(content)
    return SourceImage(name, lambda: content)


def labels_of(label: Any, name: str) -> tuple[int, ...] | tuple[str, ...]:
    """The labels of a sample: a number, several, or a name as bytes.

    Raises:
        InputError: it is something else.
    """
    x = np.asarray(label)
    if x.dtype == np.int8 and x.ndim == 1:
        return (text_of(x, name),)
    whole = x.dtype.kind in "iu" or (x.dtype.kind == "f" and bool((x == np.floor(x)).all()))
    if not whole or x.ndim > 1:
        raise InputError(
            f"{name}: its label has to be a whole number, several of them, or the bytes of a name"
        )
    return tuple(sorted({int(value) for value in x.reshape(-1)}))


def text_of(value: Any, name: str) -> str:
    """The text of a key that holds bytes.

    Raises:
        InputError: it holds something else, or no valid UTF-8.
    """
    x = np.asarray(value)
    if x.ndim != 1 or x.dtype not in (np.int8, np.uint8):
        raise InputError(f"{name}: ids, captions and names of labels have to be bytes in UTF-8")
    try:
        return x.tobytes().rstrip(b"\0").decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: ids, captions and names of labels have to be bytes in UTF-8") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
