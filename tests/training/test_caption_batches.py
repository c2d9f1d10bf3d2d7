"""Batches of captions: each image once an epoch, its captions in turn, equal ones known as equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.captioned import captioned
from PIL import Image

from mlx_aimv2 import load
from mlx_aimv2.datasets.captioned import CaptionDataset, read_captions
from mlx_aimv2.errors import InputError
from mlx_aimv2.events import Notice
from mlx_aimv2.processing.processor import Processor
from mlx_aimv2.training import caption_batches as module
from mlx_aimv2.training.augment import Augmentation
from mlx_aimv2.training.batches import BatchOptions
from mlx_aimv2.training.caption_batches import PairBatches, TokenTable, same_captions


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> CaptionDataset:
    """19 training images of which some have two captions, and 5 for validation."""
    return read_captions(captioned(tmp_path_factory.mktemp("captions") / "data"))


@pytest.fixture(scope="module")
def processor(tiny_pair: Path) -> Processor:
    return load(tiny_pair)[1]


def epochs(batches: PairBatches, *numbers: int) -> list[Any]:
    return [batch for number in numbers for batch in batches.epoch(number)]


def test_an_epoch_takes_each_image_once_in_batches_of_equal_size(
    dataset: CaptionDataset, processor: Processor
) -> None:
    batches = PairBatches(dataset, processor, BatchOptions(6))
    first, second = (list(batches.epoch(number)) for number in (0, 1))
    assert len(batches) == 4 and [len(batch.indices) for batch in first] == [4, 5, 5, 5]
    for epoch in (first, second):
        assert sorted(np.concatenate([batch.indices for batch in epoch])) == list(range(19))
    assert not np.array_equal(first[0].indices, second[0].indices)


def test_it_begins_anywhere(dataset: CaptionDataset, processor: Processor) -> None:
    options = BatchOptions(6, augmentation=Augmentation(flip=0.5, brightness=0.3))
    whole = list(PairBatches(dataset, processor, options).epoch(3))
    rest = list(PairBatches(dataset, processor, options).epoch(3, start_batch=2))
    for ours, theirs in zip(rest, whole[2:], strict=True):
        np.testing.assert_array_equal(ours.inputs[1], theirs.inputs[1])
        for name in ("pixels", "targets", "weights", "indices"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_captions_of_an_image_take_turns(dataset: CaptionDataset, processor: Processor) -> None:
    batches, indices = PairBatches(dataset, processor), np.arange(19)
    taken = [batches.captions(indices, epoch) for epoch in range(4)]
    several = np.array([len(example.captions) == 2 for example in dataset.train])
    assert several.any() and (taken[0][several] != taken[1][several]).all()
    np.testing.assert_array_equal(taken[0], taken[2])
    np.testing.assert_array_equal(taken[0][~several], taken[1][~several])
    other = PairBatches(dataset, processor, BatchOptions(seed=5))
    assert not np.array_equal(other.captions(indices, 0), taken[0])


def test_one_two_or_three_captions_take_turns_each_by_itself(tmp_path: Path, processor: Processor) -> None:
    """In k epochs an image with k captions shows each of them once, from its own first one on, and again."""
    counts = [1, 2, 3] * 4
    rows = ["path,caption"]
    for number, count in enumerate(counts):
        Image.new("RGB", (28, 28)).save(tmp_path / f"{number:02}.png")
        rows += [f"{number:02}.png,caption {number} {k}" for k in range(count)]
    (tmp_path / "captions.csv").write_text("\n".join(rows))
    batches = PairBatches(read_captions(tmp_path / "captions.csv", val_fraction=0), processor)
    taken = np.array([batches.captions(np.arange(12), epoch) for epoch in range(7)])
    first = np.cumsum(counts) - counts
    turns = taken - first  # every caption is another, so its row is its number
    firsts = set()
    for number, count in enumerate(counts):
        start = turns[0, number]
        firsts.add((count, int(start)))
        assert turns[:, number].tolist() == [(start + epoch) % count for epoch in range(7)]
    assert {3, 2, 1} <= {count for count, _ in firsts} and len(firsts) > 3  # not all begin with their first


def test_validation_is_the_first_caption_in_the_order_of_the_examples(
    dataset: CaptionDataset, processor: Processor
) -> None:
    batches = PairBatches(dataset, processor, BatchOptions(2), split="val", training=False)
    assert np.concatenate([batch.indices for batch in epochs(batches, 7)]).tolist() == list(
        range(len(dataset.val))
    )
    for image, captions in enumerate(batches.belonging()):
        assert len(captions) == len(dataset.val[image].captions)
        assert batches.captions(np.array([image]), 5).tolist() == captions[:1]


def test_token_ids_are_those_of_the_tokenizer(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["a dog", "a much longer caption", "a dog", "x"]
    monkeypatch.setattr(module, "CHUNK", 2)
    table = TokenTable(words, processor)
    assert table.numbers.tolist() == [0, 1, 0, 2] and len(table) == 3 and table.truncated == 0
    np.testing.assert_array_equal(
        table.rows(np.array([0, 2, 1])), processor.encode(["a dog", "x", words[1]]).input_ids
    )
    np.testing.assert_array_equal(table.rows(np.array([2])), processor.encode(["x"]).input_ids)


def test_on_a_gpu_lengths_are_few(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "on_cpu", lambda: False)
    table = TokenTable(["x", "y" * 11, "z" * 200], processor)
    assert [table.rows(np.array([k])).shape[1] for k in range(3)] == [8, 16, 77]
    assert (table.rows(np.array([0]))[0, 3:] == processor.tokenizer.pad_token_id).all()  # type: ignore[union-attr]


def test_captions_that_are_too_long_are_counted(tmp_path: Path, processor: Processor) -> None:
    data = captioned(tmp_path / "data")
    data.write_text(data.read_text().replace("blue at the top, number 0", "long " * 60))
    events: list[Any] = []
    PairBatches(read_captions(data, val_fraction=0), processor, on_event=events.append)
    assert events == [Notice("1 caption of train longer than the 77 tokens of the model: cut there")]


def test_a_checkpoint_without_words(dataset: CaptionDataset, tiny_vision: Path) -> None:
    with pytest.raises(InputError, match="this checkpoint has no text encoder: use the image-text pair lit"):
        PairBatches(dataset, load(tiny_vision)[1])


def test_equal_captions_belong_to_all_their_images() -> None:
    np.testing.assert_array_equal(same_captions(np.array([4, 2, 9])), np.eye(3, dtype=np.float32))
    expected = [[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]]
    np.testing.assert_array_equal(same_captions(np.array([4, 2, 4])), np.array(expected, dtype=np.float32))
