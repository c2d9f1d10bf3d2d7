"""Batches of labelled images: order, decoding in threads, augmentation, mixing, weights of classes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np

from ..backend.device import on_cpu
from ..datasets.labelled import Dataset
from ..processing.decode import ImageInput, decode_image
from ..processing.image import ImageProcessor
from ..sources.readahead import DEFAULT_THREADS, Failed, read_ahead
from .augment import Augmentation
from .mixing import Mixing, label_smoothing, multi_hot
from .step import Batch

NATIVE_EDGE = 224  # pixels: about the size of training images at native resolution
AHEAD_BYTES = 2**27  # of decoded images that wait
ORDER, IMAGE, MIXING = 1, 2, 3  # the first number of every seed, so that no two uses share their randomness


class Imaged(Protocol):
    """An example of a dataset."""

    @property
    def image(self) -> ImageInput:
        """Its image."""


@dataclass(frozen=True)
class BatchOptions:
    """Options of batches.

    Attributes:
        batch_size: images in a batch; the last one of an epoch may have fewer.
        seed: of order, augmentation and mixing.
        augmentation: of training images; None for the preprocessing of the checkpoint.
        mixing: of training batches; None for no mixing.
        label_smoothing: the part of every training target that is spread over all classes.
    """

    batch_size: int = 16
    seed: int = 0
    augmentation: Augmentation | None = None
    mixing: Mixing | None = None
    label_smoothing: float = 0.0


class ImageBatches:
    """The batches of one split.

    For training: in another order each epoch, augmented. Otherwise: in the order of the examples, each image as the
    checkpoint's own preprocessing makes it.

    Attributes:
        image_processor: the one that makes the pixels, with one size for all images.
    """

    def __init__(
        self,
        examples: Sequence[Imaged],
        image_processor: ImageProcessor,
        options: BatchOptions | None = None,
        *,
        training: bool = True,
    ) -> None:
        self.options = options or BatchOptions()
        self.image_processor = sized(image_processor)
        self._sources = [example.image for example in examples]
        self._training = training
        self._size = self.image_processor.output_size(1, 1)  # (H, W)

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return -(-len(self._sources) // self.options.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """(N,) the examples in the order of an epoch."""
        if not self._training:
            return np.arange(len(self._sources))
        return shuffled(len(self._sources), self.options.seed, epoch)

    def epoch(self, number: int = 0, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from ``start_batch`` on; they do not depend on where it starts.

        Raises:
            ImageError: an image cannot be read.
        """
        order = self.order(number)
        augments = self._training and self.options.augmentation is not None
        decode = self._augmenting(number) if augments else self._plain
        with closing(self._images(order[self._start(start_batch) :], decode)) as remaining:
            for batch in range(start_batch, len(self)):
                chosen = order[self._start(batch) : self._start(batch + 1)]
                # on a CPU, decoding ahead would slow the computation
                images = self._images(chosen, decode) if on_cpu() else islice(remaining, len(chosen))
                yield self._batch(np.stack(list(images)), chosen, number, batch)

    def _start(self, batch: int) -> int:
        """The number of examples in the batches before ``batch``."""
        return min(batch * self.options.batch_size, len(self._sources))

    def _batch(self, pixels: np.ndarray, indices: np.ndarray, epoch: int, number: int) -> Batch:
        """The batch of images (B, H, W, 3) of the examples (B,) ``indices``."""
        raise NotImplementedError

    def _images(
        self, indices: np.ndarray, decode: Callable[[int], np.ndarray]
    ) -> Generator[np.ndarray, None, None]:
        """The pixels of some examples, decoded ahead in threads, which end with this generator."""
        with closing(read_ahead(indices.tolist(), decode, DEFAULT_THREADS, self._ahead())) as results:
            for result in results:
                if isinstance(result, Failed):
                    raise result.error
                yield result.pixels

    def _plain(self, index: int) -> np.ndarray:
        return self.image_processor(self._sources[index])

    def _augmenting(self, epoch: int) -> Callable[[int], np.ndarray]:
        """A function that augments an example, at random by seed, epoch and example alone."""
        augmentation, processor = self.options.augmentation or Augmentation(), self.image_processor
        short_edge = augmentation.short_edge(self._size)

        def augmented(index: int) -> np.ndarray:
            image = decode_image(self._sources[index], processor.decode, short_edge)
            rng = np.random.default_rng([IMAGE, self.options.seed, epoch, index])
            return processor.normalize(augmentation.apply(image, rng, self._size))

        return augmented

    def _ahead(self) -> int:
        """The number of images that wait: two batches, if they fit into `AHEAD_BYTES`."""
        height, width = self._size
        return max(1, min(2 * self.options.batch_size, AHEAD_BYTES // (height * width * 3 * 4)))


class Batches(ImageBatches):
    """The batches of one split of labelled images; training batches are mixed, smoothed and weighted."""

    def __init__(
        self,
        dataset: Dataset,
        image_processor: ImageProcessor,
        options: BatchOptions | None = None,
        *,
        split: str = "train",
        training: bool = True,
        weights: np.ndarray | None = None,
    ) -> None:
        """Prepare the batches; no image is opened yet.

        Args:
            dataset: the labelled images.
            image_processor: from `load`.
            options: None for the defaults of `BatchOptions`.
            split: "train", "val" or "test".
            training: whether the batches are for training; only those of the split "train" can be.
            weights: (C,) how much each class counts in training, such as `class_weights`; None for all alike.

        Raises:
            InputError: the split does not exist.
        """
        examples = dataset.split(split)
        super().__init__(examples, image_processor, options, training=training and split == "train")
        self._labels = [example.labels for example in examples]
        self._classes, self._multi_label = len(dataset.labels), dataset.multi_label
        self._weights = weights if self._training else None

    def _batch(self, pixels: np.ndarray, indices: np.ndarray, epoch: int, number: int) -> Batch:
        targets = multi_hot([self._labels[index] for index in indices], self._classes)
        if self._training and self.options.mixing is not None:
            rng = np.random.default_rng([MIXING, self.options.seed, epoch, number])
            pixels, targets = self.options.mixing.apply(pixels, targets, rng)
        weights = np.ones(len(targets), dtype=np.float32)
        if self._weights is not None:
            weights = image_weights(targets, self._weights)
            if not self._multi_label:  # each part of a mixture counts as its class does
                targets = targets * self._weights / weights[:, None]
        if self._training:
            targets = label_smoothing(targets, self.options.label_smoothing, self._multi_label)
        return Batch((pixels,), targets, weights, indices)


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """(N,) the numbers from 0 on, in an order that follows from seed and epoch alone."""
    # raw bits are the same in every version of NumPy; shuffles need not be
    bits = np.random.PCG64([ORDER, seed, epoch]).random_raw(count)
    return np.argsort(bits, kind="stable")


def sized(image_processor: ImageProcessor) -> ImageProcessor:
    """The processor of training images: the checkpoint's own, with one size for all images.

    At native resolution this is a square of about 224 pixels, made of whole patches.
    """
    if image_processor.is_native:
        patch = image_processor.patch_size
        edge = max(1, round(NATIVE_EDGE / patch)) * patch
        return image_processor.at_size(edge, edge)
    config = image_processor.config
    if config.do_center_crop or not isinstance(config.size, int):
        return image_processor
    # it would keep the long edge, and shapes would differ
    return image_processor.at_size(config.size, config.size)


def class_weights(dataset: Dataset) -> np.ndarray:
    """(C,) float32: N / (C * n_c) for N training labels, n_c of them of class c: all classes count alike."""
    counts = np.array(dataset.counts("train"), dtype=np.float64)
    return (counts.sum() / (len(counts) * np.maximum(counts, 1))).astype(np.float32)


def image_weights(targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(B,) float32: the mean of the class weights (C,) over the targets (B, C) of an image; 1 without labels."""
    sums = targets.sum(axis=1)
    # not a matrix product, for which NumPy may warn of invalid values where there are none
    totals = (targets * weights).sum(axis=1)
    return np.where(sums > 0, totals / np.maximum(sums, 1e-6), 1).astype(np.float32)
