"""An `mlx.data.Buffer` as a data set: samples with labels or captions, held out as the images of a folder are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ImageError, InputError
from ..events import Skipped
from ..processing.samples import CAPTION, LABEL, SampleNames, Samples, has_samples, samples_of
from ..processing.source_image import SourceImage
from ..sources.readahead import Failed, read_ahead
from .captioned import CaptionDataset, Captioned
from .labelled import Dataset, Example, label_splits
from .record import file_mark
from .rows import Row, Rows, label_name
from .splits import check_split_options, split_rows

ROOT = Path("the buffer")  # what messages call the data


def read_buffer_labels(buffer: Any, *, val_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """Read the labels of a buffer for training; every sample is fetched once.

    Args:
        buffer: its samples have the keys ``image`` and ``label``, and perhaps ``id``. A number as a label is the
            name of a class too.
        val_fraction: the share of each class to hold out for validation.
        seed: chooses the images held out, by their ids.

    Raises:
        InputError: it is no buffer, a sample has no label or the id of another, or a classifier cannot learn from it.
    """
    check_split_options(val_fraction, seed)

    def labels(samples: Samples, number: int) -> tuple[str, ...] | None:
        own = samples.labels.get(number)
        return None if own is None else tuple(dict.fromkeys(label_name(str(label)) for label in own))

    source, images = _read(buffer, LABEL, labels)

    def example(row: Row, numbers: tuple[int, ...]) -> Example:
        return Example(row.path, numbers, sample=images[row.path])

    return label_splits(source, ROOT, ROOT, example, val_fraction, seed)


def read_buffer_captions(buffer: Any, *, val_fraction: float = 0.2, seed: int = 0) -> CaptionDataset:
    """Read the captions of a buffer, whose samples have the keys ``image`` and ``caption``; see `read_buffer_labels`.

    Raises:
        InputError: it is no buffer, or a sample has no caption or the id of another.
    """
    check_split_options(val_fraction, seed)
    source, images = _read(buffer, CAPTION, lambda samples, number: samples.captions.get(number) or None)

    def captioned(row: Row) -> Captioned:
        return Captioned(row.path, row.labels, sample=images[row.path])

    return split_rows(source, ROOT, captioned, lambda _: (), val_fraction, seed)


def _read(
    buffer: Any, key: str, values: Callable[[Samples, int], tuple[str, ...] | None]
) -> tuple[Rows, dict[str, SourceImage]]:
    """A row for each sample, in the order of their names, and their images by name."""
    if not has_samples(buffer):
        raise InputError(f"data is a {type(buffer).__name__}, but has to be an mlx.data.Buffer")
    samples = samples_of(buffer)
    if not len(samples):
        raise InputError("the buffer is empty: give one with samples")
    names, found, skipped = SampleNames(samples), dict[int, SourceImage](), list[Skipped]()

    def fetch(number: int) -> np.ndarray:
        found[number] = _marked(samples, number)
        return np.zeros((1, 1, 1), dtype=np.float32)  # in place of the pixels, which are not needed

    with closing(read_ahead(range(len(samples)), fetch)) as results:
        for result in results:
            if not isinstance(result, Failed):
                continue
            if not isinstance(result.error, ImageError):
                raise result.error
            skipped.append(Skipped.of(names[result.index], result.error))
    if not found:
        raise InputError(f"no sample of the buffer can be read ({skipped[0].source}: {skipped[0].reason})")
    rows, images = [], dict[str, SourceImage]()
    for number in sorted(found):
        name, own = names[number], values(samples, number)
        if own is None:
            raise InputError(f"{name} has no {key}: a sample needs the key {key}, which rename_key gives it")
        if name in images:
            raise InputError(f"two samples of the buffer have the id {name}: give each its own")
        images[name] = found[number]
        rows.append(Row(name, own, None, name))
    return Rows(sorted(rows, key=lambda row: row.path), (), tuple(skipped)), images


def _marked(samples: Samples, number: int) -> SourceImage:
    """The image of a sample, which is fetched again for each use, with a hash of its content as its version."""
    image = samples[number]
    content = image.open()

    def again() -> SourceImage:
        try:
            return samples[number]
        except ImageError as error:
            raise ImageError(error.message) from error  # the decoder puts the name before it

    if isinstance(content, str):
        return SourceImage(image.id, again, file=content, version=file_mark(content) or "")
    digest = hashlib.sha256()
    if isinstance(content, np.ndarray):
        digest.update(f"{content.dtype} {content.shape}".encode())
        content = np.ascontiguousarray(content)
    digest.update(content)
    return SourceImage(image.id, again, version=digest.hexdigest()[:24])
