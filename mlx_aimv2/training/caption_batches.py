"""Batches of images with captions, and the token ids of all captions."""

from __future__ import annotations

import numpy as np

from ..backend.device import on_cpu
from ..datasets.captioned import CaptionDataset
from ..errors import InputError
from ..events import Notice, OnEvent, warn
from ..messages import counted
from ..processing.processor import Processor
from .batches import BatchOptions, ImageBatches
from .step import Batch

CAPTION = 4  # the first number of the seed that chooses captions; see `batches`
BUCKET = 8  # tokens: a GPU compiles every new length of a batch
CHUNK = 1024  # captions that are encoded at once


class TokenTable:
    """The token ids of captions, with BOS and EOS; equal captions share a row.

    Attributes:
        numbers: the row of each caption.
        longest: the most tokens that the model takes.
        truncated: the number of different captions that were too long and lost their end.
    """

    def __init__(self, captions: list[str], processor: Processor) -> None:
        """Encode captions.

        Raises:
            InputError: the checkpoint has no tokenizer.
        """
        tokenizer = processor.tokenizer
        if tokenizer is None:
            raise InputError("this checkpoint has no text encoder: use the image-text pair lit")
        first: dict[str, int] = {}
        self.numbers = np.array([first.setdefault(caption, len(first)) for caption in captions])
        distinct, ids, lengths, self.truncated = list(first), [], [], 0
        for start in range(0, len(distinct), CHUNK):
            encoding = processor.encode(distinct[start : start + CHUNK])
            mask = encoding.attention_mask.astype(bool)
            ids.append(encoding.input_ids[mask])
            lengths.append(mask.sum(axis=1))
            self.truncated += len(encoding.truncated)
        self._ids = np.concatenate(ids)
        self._starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
        self._padding = tokenizer.pad_token_id
        longest = tokenizer.model_max_length
        self.longest = min(longest, processor.max_text_length or longest)

    def __len__(self) -> int:
        """The number of different captions."""
        return len(self._starts) - 1

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """(B, T) int32: the ids of some rows, padded on the right to the longest of them."""
        starts, ends = self._starts[numbers], self._starts[numbers + 1]
        width = int((ends - starts).max())
        if not on_cpu():
            width = min(-(-width // BUCKET) * BUCKET, self.longest)
        ids = np.full((len(numbers), width), self._padding, dtype=np.int32)
        for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
            ids[row, : end - start] = self._ids[start:end]
        return ids


class PairBatches(ImageBatches):
    """The batches of one split of images with captions.

    An epoch takes every image once, with one of its captions: a random one in the first epoch, then the next one in
    every epoch. Outside of training it is the first caption. The batches of an epoch have equal sizes, to within one
    image, as a small last batch would have too few captions to tell apart.
    """

    def __init__(
        self,
        dataset: CaptionDataset,
        processor: Processor,
        options: BatchOptions | None = None,
        *,
        split: str = "train",
        training: bool = True,
        on_event: OnEvent = warn,
    ) -> None:
        """Prepare the batches: encode all captions; no image is opened yet.

        Args:
            dataset: images with captions.
            processor: from `load`.
            options: None for the defaults of `BatchOptions`.
            split: "train", "val" or "test".
            training: whether the batches are for training; only those of the split "train" can be.
            on_event: gets a notice if captions are too long.

        Raises:
            InputError: the split does not exist, or the model has no text encoder.
        """
        examples = dataset.split(split)
        training = training and split == "train"
        super().__init__(examples, processor.image_processor, options, training=training)
        self.table = TokenTable([caption for example in examples for caption in example.captions], processor)
        counts = np.array([len(example.captions) for example in examples])
        self._counts, self._first = counts, np.cumsum(counts) - counts  # where each image's captions begin
        bits = np.random.PCG64([CAPTION, self.options.seed]).random_raw(len(counts))
        self._offsets = (bits % counts.astype(np.uint64)).astype(np.int64)
        if count := self.table.truncated:
            captions = f"{counted(count, 'caption')} of {split}"
            on_event(
                Notice(f"{captions} longer than the {self.table.longest} tokens of the model: cut there")
            )

    def captions(self, indices: np.ndarray, epoch: int) -> np.ndarray:
        """(B,) the captions of some images in an epoch, as rows of the table."""
        turn = (self._offsets[indices] + epoch) % self._counts[indices] if self._training else 0
        numbers: np.ndarray = self.table.numbers[self._first[indices] + turn]
        return numbers

    def belonging(self) -> list[list[int]]:
        """The captions of each image, as rows of the table."""
        ends = self._first + self._counts
        return [self.table.numbers[a:b].tolist() for a, b in zip(self._first, ends, strict=True)]

    def __len__(self) -> int:
        """The number of batches in an epoch; each has at least two images, if there are two."""
        return max(1, min(super().__len__(), len(self._sources) // 2))

    def _start(self, batch: int) -> int:
        return batch * len(self._sources) // len(self)

    def _batch(self, pixels: np.ndarray, indices: np.ndarray, epoch: int, number: int) -> Batch:
        captions = self.captions(indices, epoch)
        weights = np.ones(len(indices), dtype=np.float32)
        return Batch((pixels, self.table.rows(captions)), same_captions(captions), weights, indices)


def same_captions(numbers: np.ndarray) -> np.ndarray:
    """(B, B) float32: the identity where all captions (B,) differ.

    Equal captions belong to all their images in equal parts: otherwise an image would learn that it does not match
    its own caption, because another image has it too.
    """
    same = (numbers[:, None] == numbers[None, :]).astype(np.float32)
    targets: np.ndarray = same / same.sum(axis=1, keepdims=True)
    return targets
