"""Batches of images and targets, decoded ahead in threads; what is in them follows from seed and epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

import numpy as np

from ..backend.device import on_cpu
from ..datasets.labelled import Dataset
from ..datasets.splits import check_seed
from ..errors import InputError
from ..processing.decode import decode_image
from ..processing.image import ImageProcessor
from ..sources.readahead import DEFAULT_THREADS, Failed, read_ahead
from .augment import Augmentation
from .mixing import Mixing, check_smoothing, label_smoothing, multi_hot

NATIVE_EDGE = 224  # pixels, near which images of native resolution are trained unless told otherwise
AHEAD_BYTES = 2**27  # of decoded images that may wait
ORDER, IMAGE, MIXING = 1, 2, 3  # the first number of every seed, so that no two uses share their randomness


@dataclass(frozen=True)
class Batch:
    """Some images and what a model should say of them.

    Attributes:
        pixels: (B, H, W, 3) float32.
        targets: (B, C) float32; rows sum to 1, or with several labels each is between 0 and 1.
        weights: (B,) float32, how much each image counts.
        indices: (B,) which examples of the split these are.
    """

    pixels: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    indices: np.ndarray

    @property
    def inputs(self) -> tuple[np.ndarray]:
        """What the model is given."""
        return (self.pixels,)


class Imaged(Protocol):
    """An example: an image and whatever is known of it."""

    @property
    def path(self) -> str:
        """Where the image lies."""


Made = TypeVar("Made")  # a batch


@dataclass(frozen=True)
class BatchOptions:
    """How batches are made.

    Attributes:
        batch_size: Images in a batch; the last one of an epoch may have fewer.
        seed: Of order, augmentation and mixing.
        augmentation: What is done to training images; None for what is done to all others.
        mixing: How training batches are mixed; None for not at all.
        label_smoothing: Part of every training target that is spread over all classes.
        size: (height, width) in pixels. A model of fixed size takes no other; at native resolution, None is a
            square of about 224, since images of a batch have to be of one shape.
        threads: Images decoded at once.

    Raises:
        InputError: A field has a value that makes no sense.
    """

    batch_size: int = 16
    seed: int = 0
    augmentation: Augmentation | None = None
    mixing: Mixing | None = None
    label_smoothing: float = 0.0
    size: tuple[int, int] | None = None
    threads: int = DEFAULT_THREADS

    def __post_init__(self) -> None:
        for name in ("batch_size", "threads"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}, but has to be a whole number of at least 1")
        check_seed(self.seed)
        check_smoothing(self.label_smoothing)


class ImageBatches(Generic[Made]):
    """The batches of one split, whatever is known of its images.

    For training: in another order each epoch, augmented as the options say. For everything else: in the order of
    the examples, each image as the checkpoint's own preprocessing makes it.

    Attributes:
        image_processor: The one whose pixels these are; at native resolution, that of the size trained at.
    """

    def __init__(
        self,
        examples: Sequence[Imaged],
        image_processor: ImageProcessor,
        options: BatchOptions | None = None,
        *,
        training: bool = True,
    ) -> None:
        """Get ready; no image is opened yet.

        Args:
            examples: The split.
            image_processor: From `load`.
            options: The defaults of `BatchOptions` if None.
            training: Whether to train with them.

        Raises:
            InputError: A size that the model does not take.
        """
        self.options = options or BatchOptions()
        self.image_processor = sized(image_processor, self.options.size)
        self._paths = [example.path for example in examples]
        self._training = training
        self._size = self.image_processor.output_size(1, 1)  # (H, W)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self._paths) // self.options.batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """(N,) the examples in the order in which an epoch takes them."""
        if not self._training:
            return np.arange(len(self._paths))
        return shuffled(len(self._paths), self.options.seed, epoch)

    def epoch(self, number: int = 0, start_batch: int = 0) -> Iterator[Made]:
        """The batches of an epoch; training images differ from one to the next.

        Args:
            number: The epoch, from 0.
            start_batch: The batch to begin with; it and those after it are the same as if all had been taken.

        Raises:
            ImageError: An image cannot be read any more.
        """
        order = self.order(number)
        decode = self._augmenting(number) if self._augments else self._plain
        with closing(self._images(order[self._start(start_batch) :], decode)) as remaining:
            for batch in range(start_batch, len(self)):
                chosen = order[self._start(batch) : self._start(batch + 1)]
                # a CPU that computes has no time to decode meanwhile
                images = self._images(chosen, decode) if on_cpu() else islice(remaining, len(chosen))
                yield self._batch(np.stack(list(images)), chosen, number, batch)

    def _start(self, batch: int) -> int:
        """How many examples are in the batches before this one."""
        return min(batch * self.options.batch_size, len(self._paths))

    def _batch(self, pixels: np.ndarray, indices: np.ndarray, epoch: int, number: int) -> Made:
        """A batch of images (B, H, W, 3) with what is known of the examples (B,) ``indices``."""
        raise NotImplementedError

    def _images(
        self, indices: np.ndarray, decode: Callable[[int], np.ndarray]
    ) -> Generator[np.ndarray, None, None]:
        """The pixels of some examples, decoded ahead in threads; those have ended when this has."""
        with closing(read_ahead(indices.tolist(), decode, self.options.threads, self._ahead())) as results:
            for result in results:
                if isinstance(result, Failed):
                    raise result.error
                yield result.pixels

    @property
    def _augments(self) -> bool:
        return self._training and self.options.augmentation is not None

    def _plain(self, index: int) -> np.ndarray:
        return self.image_processor(self._paths[index])

    def _augmenting(self, epoch: int) -> Callable[[int], np.ndarray]:
        """Opens and augments an example; what happens to it follows from seed, epoch and example alone."""
        augmentation, processor = self.options.augmentation or Augmentation(), self.image_processor
        short_edge = augmentation.short_edge(self._size)

        def augmented(index: int) -> np.ndarray:
            image = decode_image(self._paths[index], processor.decode, short_edge)
            rng = np.random.default_rng([IMAGE, self.options.seed, epoch, index])
            return processor.normalize(augmentation.apply(image, rng, self._size))

        return augmented

    def _ahead(self) -> int:
        """Images that may wait: two batches, but no more than memory takes easily."""
        height, width = self._size
        return max(1, min(2 * self.options.batch_size, AHEAD_BYTES // (height * width * 3 * 4)))


class Batches(ImageBatches[Batch]):
    """The batches of one split of labelled images; those for training also mixed, smoothed and weighted."""

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
        """Get ready; no image is opened yet.

        Args:
            dataset: Where the examples are from.
            image_processor: From `load`.
            options: The defaults of `BatchOptions` if None.
            split: "train", "val" or "test".
            training: Whether to train with them; only the split "train" ever is.
            weights: (C,) how much each class counts in training, such as `class_weights`; None for all alike.

        Raises:
            InputError: An unknown split, or a size that the model does not take.
        """
        examples = dataset.split(split)
        super().__init__(examples, image_processor, options, training=training and split == "train")
        self._labels = [example.labels for example in examples]
        self._classes, self._multi_label = len(dataset.labels), dataset.multi_label
        self._weights = weights if self._training else None

    def _batch(self, pixels: np.ndarray, indices: np.ndarray, epoch: int, number: int) -> Batch:
        targets = multi_hot([self._labels[index] for index in indices], self._classes)
        if self._training:
            if self.options.mixing is not None:
                rng = np.random.default_rng([MIXING, self.options.seed, epoch, number])
                pixels, targets = self.options.mixing.apply(pixels, targets, rng)
            weights = self._weigh(targets)
            if (
                self._weights is not None and not self._multi_label
            ):  # each part of a mixture counts as its class does
                targets = targets * self._weights / weights[:, None]
            targets = label_smoothing(targets, self.options.label_smoothing, self._multi_label)
        else:
            weights = self._weigh(targets)
        return Batch(pixels, targets, weights, indices)

    def _weigh(self, targets: np.ndarray) -> np.ndarray:
        """(B,) the mean weight of the labels of each image, by their parts; 1 without labels."""
        if self._weights is None:
            return np.ones(len(targets), dtype=np.float32)
        parts = targets.sum(axis=1)
        return np.where(parts > 0, targets @ self._weights / np.maximum(parts, 1e-6), 1).astype(np.float32)


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """(N,) the numbers from 0 on, in an order that follows from seed and epoch alone."""
    # raw bits are the same in every version of NumPy; shuffles need not be
    bits = np.random.PCG64([ORDER, seed, epoch]).random_raw(count)
    return np.argsort(bits, kind="stable")


def sized(image_processor: ImageProcessor, size: tuple[int, int] | None = None) -> ImageProcessor:
    """The processor that training uses: the checkpoint's own, with one size for all images.

    Args:
        image_processor: From `load`.
        size: (height, width) in pixels; None for the model's own, or at native resolution for a square of about
            224 pixels: 16x16 patches of 14.

    Raises:
        InputError: The model takes images of another size only, or ``size`` is not made of whole patches.
    """
    if image_processor.is_native:
        patch = image_processor.patch_size
        edge = max(1, round(NATIVE_EDGE / patch)) * patch
        return image_processor.at_size(*(size or (edge, edge)))
    config = image_processor.config
    own = config.crop_size if config.do_center_crop else config.size
    height, width = (own, own) if isinstance(own, int) else own
    if size is not None and size != (height, width):
        raise InputError(
            f"this checkpoint takes images of {height}x{width} pixels, not {size[0]}x{size[1]}: leave the size"
            " out, or use a checkpoint of native resolution"
        )
    if config.do_center_crop or not isinstance(config.size, int):
        return image_processor
    return image_processor.at_size(height, width)  # it would keep the long edge, and so shapes would differ


def class_weights(dataset: Dataset) -> np.ndarray:
    """(C,) float32: N / (C * n_c), so that every class counts as much in training, however rare it is.

    N is how many labels the training images have together, n_c how many of them are of class c.
    """
    counts = np.array(dataset.counts("train"), dtype=np.float64)
    return (counts.sum() / (len(counts) * np.maximum(counts, 1))).astype(np.float32)
