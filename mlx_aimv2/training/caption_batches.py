"""Batches of images with a caption each; captions become token ids once, before the first epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..backend.device import on_cpu
from ..datasets.captioned import CaptionDataset
from ..errors import InputError
from ..events import Notice, OnEvent, ignore
from ..messages import counted
from ..processing.processor import Processor
from .batches import BatchOptions, ImageBatches

CAPTION = 4  # the first number of the seed of which caption an epoch takes; see `batches`
BUCKET = 8  # tokens: on a GPU every new length of a batch is compiled
CHUNK = 1024  # captions made token ids at once


@dataclass(frozen=True)
class PairBatch:
    """Some images with a caption each.

    Attributes:
        pixels: (B, H, W, 3) float32.
        input_ids: (B, T) int32, padded on the right.
        targets: (B, B) float32, which captions belong to which images, in parts that sum to 1.
        weights: (B,) float32, 1 for each.
        indices: (B,) which examples of the split these are.
    """

    pixels: np.ndarray
    input_ids: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    indices: np.ndarray

    @property
    def inputs(self) -> tuple[np.ndarray, np.ndarray]:
        """What the model is given."""
        return self.pixels, self.input_ids


class TokenTable:
    """The token ids of many captions, equal ones kept once; BOS and EOS around each.

    Attributes:
        numbers: for each caption given, its row in the table: the same for equal captions.
        longest: tokens that the model takes.
        truncated: how many different captions did not fit the model and lost their end.
    """

    def __init__(self, captions: list[str], processor: Processor) -> None:
        """Make captions token ids.

        Raises:
            InputError: the checkpoint has no tokenizer.
        """
        tokenizer = processor.tokenizer
        if tokenizer is None:
            raise InputError("this checkpoint has no text encoder: use the image-text pair lit")
        first: dict[str, int] = {}
        self.numbers = np.array([first.setdefault(caption, len(first)) for caption in captions])
        distinct, parts, lengths, self.truncated = list(first), [], [], 0
        for start in range(0, len(distinct), CHUNK):
            encoding = processor.encode(distinct[start : start + CHUNK])
            mask = encoding.attention_mask.astype(bool)
            parts.append(encoding.input_ids[mask])
            lengths.append(mask.sum(axis=1))
            self.truncated += len(encoding.truncated)
        self._ids = np.concatenate(parts)
        self._starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        self._padding = tokenizer.pad_token_id
        longest = tokenizer.model_max_length
        self.longest = min(longest, processor.max_text_length or longest)

    def __len__(self) -> int:
        """Different captions."""
        return len(self._starts) - 1

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """(B, T) the ids of some captions, by their row in the table, as wide as the longest of them needs."""
        starts, ends = self._starts[numbers], self._starts[numbers + 1]
        width = int((ends - starts).max())
        if not on_cpu():
            width = min(-(-width // BUCKET) * BUCKET, self.longest)
        ids = np.full((len(numbers), width), self._padding, dtype=np.int32)
        for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
            ids[row, : end - start] = self._ids[start:end]
        return ids


class PairBatches(ImageBatches[PairBatch]):
    """The batches of one split of images with captions.

    An epoch takes every image once, with one of its captions: the next one in every epoch, from a first one that
    chance has chosen. Outside of training it is the first. Batches of an epoch are equally large, to within one
    image: a last batch of a few images would have next to nothing to be told apart.
    """

    def __init__(
        self,
        dataset: CaptionDataset,
        processor: Processor,
        options: BatchOptions | None = None,
        *,
        split: str = "train",
        training: bool = True,
        on_event: OnEvent = ignore,
    ) -> None:
        """Get ready; no image is opened yet, but all captions are made token ids.

        Args:
            dataset: where the examples are from.
            processor: from `load`.
            options: the defaults of `BatchOptions` if None.
            split: "train", "val" or "test".
            training: whether to train with them; only the split "train" ever is.
            on_event: gets a notice where captions are too long.

        Raises:
            InputError: an unknown split, a model without a text encoder, or a size that it does not take.
        """
        examples = dataset.split(split)
        training = training and split == "train"
        super().__init__(examples, processor.image_processor, options, training=training)
        self.table = TokenTable([caption for one in examples for caption in one.captions], processor)
        counts = np.array([len(one.captions) for one in examples])
        self._counts, self._first = counts, np.cumsum(counts) - counts  # where each image's captions begin
        bits = np.random.PCG64([CAPTION, self.options.seed]).random_raw(len(counts))
        self._offsets = (bits % counts.astype(np.uint64)).astype(np.int64)
        if count := self.table.truncated:
            captions = f"{counted(count, 'caption')} of {split}"
            on_event(
                Notice(f"{captions} longer than the {self.table.longest} tokens of the model: cut there")
            )

    def captions(self, indices: np.ndarray, epoch: int) -> np.ndarray:
        """(B,) the captions, as rows of the table, with which an epoch takes some images."""
        turn = (self._offsets[indices] + epoch) % self._counts[indices] if self._training else 0
        numbers: np.ndarray = self.table.numbers[self._first[indices] + turn]
        return numbers

    def belonging(self) -> list[list[int]]:
        """For each image the rows of its captions in the table."""
        ends = self._first + self._counts
        return [self.table.numbers[a:b].tolist() for a, b in zip(self._first, ends, strict=True)]

    def __len__(self) -> int:
        """Batches of an epoch; none is of one image alone, which has nothing to be told apart."""
        return max(1, min(super().__len__(), len(self._paths) // 2))

    def _start(self, batch: int) -> int:
        return batch * len(self._paths) // len(self)

    def _batch(self, pixels: np.ndarray, indices: np.ndarray, epoch: int, number: int) -> PairBatch:
        captions = self.captions(indices, epoch)
        weights = np.ones(len(indices), dtype=np.float32)
        return PairBatch(pixels, self.table.rows(captions), same_captions(captions), weights, indices)


def same_captions(numbers: np.ndarray) -> np.ndarray:
    """(B, B) float32: the identity where all captions (B,) differ.

    Equal ones belong to all their images, in equal parts: else an image would be taught that it does not match
    its own words, because they stand beside another image too.
    """
    same = (numbers[:, None] == numbers[None, :]).astype(np.float32)
    targets: np.ndarray = same / same.sum(axis=1, keepdims=True)
    return targets
