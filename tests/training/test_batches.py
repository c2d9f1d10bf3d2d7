"""Batches: order, threads, resuming, and augmentation only where it belongs."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.labelled import EDGE, NATIVE, PROCESSOR, class_folders, image

from mlx_aimv2.datasets.labelled import Dataset, Example, read_dataset
from mlx_aimv2.errors import ImageError, InputError
from mlx_aimv2.processing.image import ImageProcessor, ImageProcessorConfig
from mlx_aimv2.training import batches as module
from mlx_aimv2.training.augment import Augmentation
from mlx_aimv2.training.batches import Batch, Batches, BatchOptions, class_weights, sized
from mlx_aimv2.training.mixing import Mixing

STRONG = Augmentation((0.3, 1.0), flip=0.5, randaugment=2, brightness=0.3)
EVERYTHING = BatchOptions(4, 1, STRONG, Mixing(mixup=0.4, cutmix=1.0), 0.1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """15 training images of three classes, and 4 for validation."""
    return read_dataset(class_folders(tmp_path_factory.mktemp("data"), cat=9, dog=6, owl=4))


def are_equal(first: Iterable[Batch], second: Iterable[Batch]) -> bool:
    """Whether two rows of batches are equal to the last bit."""
    pairs = zip(first, second, strict=True)
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in pairs
        for name in ("pixels", "targets", "weights", "indices")
    )


def test_an_epoch_holds_every_training_image_once(dataset: Dataset) -> None:
    batches = Batches(dataset, PROCESSOR, BatchOptions(4))
    epoch = list(batches.epoch(0))
    assert [len(batch.indices) for batch in epoch] == [4, 4, 4, 3] and len(batches) == 4
    assert sorted(np.concatenate([batch.indices for batch in epoch])) == list(range(15))
    for batch in epoch:
        assert batch.pixels.shape == (len(batch.indices), EDGE, EDGE, 3)
        assert {batch.pixels.dtype, batch.targets.dtype, batch.weights.dtype} == {np.dtype(np.float32)}
        for row, index in enumerate(batch.indices):
            example = dataset.train[index]
            np.testing.assert_array_equal(batch.pixels[row], PROCESSOR(example.path))
            assert batch.targets[row].tolist() == [label == example.labels[0] for label in range(3)]
        assert batch.weights.tolist() == [1] * len(batch.indices)


def test_the_order_follows_from_seed_and_epoch_alone(dataset: Dataset) -> None:
    orders = [
        Batches(dataset, PROCESSOR, BatchOptions(seed=s)).order(e).tolist() for s in (0, 1) for e in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == 4
    assert Batches(dataset, PROCESSOR, BatchOptions(7)).order(1).tolist() == orders[1]
    assert orders[0] == [9, 2, 14, 4, 12, 7, 5, 0, 11, 8, 10, 13, 6, 3, 1]  # in every version


@pytest.mark.parametrize("threads", [1, 5])
def test_the_pace_of_threads_changes_nothing(dataset: Dataset, threads: int, monkeypatch: Any) -> None:
    """Of two images that are decoded at once, the later one is ready first."""
    expected = list(Batches(dataset, PROCESSOR, EVERYTHING).epoch(2))
    decode, order, done = module.decode_image, [], threading.Event()

    def late_first(path: str, *arguments: Any) -> Any:
        order.append(path)
        if len(order) == 1 and threads > 1:
            assert done.wait(60)  # for the second one
        decoded = decode(path, *arguments)
        if path != order[0]:
            done.set()
        return decoded

    monkeypatch.setattr(module, "DEFAULT_THREADS", threads)
    monkeypatch.setattr(module, "decode_image", late_first)
    assert are_equal(expected, Batches(dataset, PROCESSOR, EVERYTHING).epoch(2))


@pytest.mark.parametrize("start", [0, 1, 3, 4, 9])
def test_an_epoch_goes_on_where_it_was_left(dataset: Dataset, start: int) -> None:
    whole = list(Batches(dataset, PROCESSOR, EVERYTHING).epoch(1))
    assert are_equal(whole[start:], Batches(dataset, PROCESSOR, EVERYTHING).epoch(1, start_batch=start))


def test_an_epoch_that_is_given_up_leaves_nothing_behind(dataset: Dataset) -> None:
    batches = Batches(dataset, PROCESSOR, EVERYTHING)
    epoch = batches.epoch(0)
    first = next(epoch)
    epoch.close()  # type: ignore[attr-defined]
    assert are_equal([first], [next(batches.epoch(0))])


def test_training_images_differ_from_epoch_to_epoch_and_from_seed_to_seed(dataset: Dataset) -> None:
    def of_first_example(seed: int, epoch: int) -> bytes:
        options = BatchOptions(15, seed, STRONG)
        (batch,) = Batches(dataset, PROCESSOR, options).epoch(epoch)
        return batch.pixels[batch.indices.tolist().index(0)].tobytes()

    assert len({of_first_example(seed, epoch) for seed in (0, 1) for epoch in (0, 1)}) == 4


def test_what_happens_to_an_image_does_not_depend_on_its_batch(dataset: Dataset) -> None:
    def images(batch_size: int) -> dict[int, bytes]:
        epoch = Batches(dataset, PROCESSOR, BatchOptions(batch_size, 0, STRONG)).epoch(3)
        return {
            int(i): x.tobytes() for batch in epoch for i, x in zip(batch.indices, batch.pixels, strict=True)
        }

    assert images(2) == images(15)


@pytest.mark.parametrize("how", [{"split": "val"}, {"split": "val", "training": False}, {"training": False}])
def test_only_training_images_are_changed(dataset: Dataset, how: dict[str, Any]) -> None:
    batches = Batches(dataset, PROCESSOR, EVERYTHING, weights=class_weights(dataset), **how)
    examples = dataset.split(how.get("split", "train"))
    for epoch in (0, 1):
        rows = list(batches.epoch(epoch))
        assert np.concatenate([batch.indices for batch in rows]).tolist() == list(range(len(examples)))
        expected = np.stack([PROCESSOR(example.path) for example in examples])
        np.testing.assert_array_equal(np.concatenate([batch.pixels for batch in rows]), expected)
        targets = np.concatenate([batch.targets for batch in rows])
        np.testing.assert_array_equal(targets, np.eye(3)[[example.labels[0] for example in examples]])
        assert (np.concatenate([batch.weights for batch in rows]) == 1).all()


def test_an_augmentation_without_a_crop_shows_what_validation_sees(dataset: Dataset, tmp_path: Path) -> None:
    square = Example(str(image(tmp_path / "x.png", 0, 64, 64)), (0,))
    one = replace(dataset, train=(square,))
    (batch,) = Batches(one, PROCESSOR, BatchOptions(augmentation=Augmentation())).epoch(0)
    np.testing.assert_array_equal(batch.pixels[0], PROCESSOR(square.path))


def test_mixed_and_smoothed_targets_sum_to_one(dataset: Dataset) -> None:
    epoch = list(Batches(dataset, PROCESSOR, EVERYTHING).epoch(0))
    for batch in epoch:
        np.testing.assert_allclose(batch.targets.sum(axis=1), 1, atol=1e-6)
        assert batch.targets.min() >= 0.1 / 3 - 1e-6
    assert any((np.sort(batch.targets, axis=1)[:, 1] > 0.05).any() for batch in epoch)


def test_balanced_weights(dataset: Dataset) -> None:
    weights = class_weights(dataset)
    assert dataset.counts() == (7, 5, 3)
    np.testing.assert_allclose(weights, [15 / 21, 15 / 15, 15 / 9], rtol=1e-6)
    for options in (BatchOptions(4), BatchOptions(4, label_smoothing=0.1)):
        for batch in Batches(dataset, PROCESSOR, options, weights=weights).epoch(0):
            labels = [dataset.train[index].labels[0] for index in batch.indices]
            np.testing.assert_allclose(batch.weights, weights[labels], rtol=1e-6)


def test_each_part_of_a_mixture_counts_as_its_class_does(dataset: Dataset) -> None:
    weights = class_weights(dataset)
    options = BatchOptions(4, mixing=Mixing(mixup=1.0))
    plain = list(Batches(dataset, PROCESSOR, options).epoch(0))
    weighted = list(Batches(dataset, PROCESSOR, options, weights=weights).epoch(0))
    for one, other in zip(plain, weighted, strict=True):
        np.testing.assert_allclose(other.targets.sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(other.targets * other.weights[:, None], one.targets * weights, rtol=1e-5)


def test_several_labels(tmp_path: Path) -> None:
    labels: list[tuple[int, ...]] = [(0, 1), (1,), ()]
    examples = [Example(str(image(tmp_path / f"{k}.png", k)), each) for k, each in enumerate(labels)]
    dataset = Dataset(tuple(examples), labels=("red", "round"), multi_label=True)
    weights = class_weights(dataset)
    np.testing.assert_allclose(weights, [3 / 2, 3 / 4])
    (batch,) = Batches(dataset, PROCESSOR, BatchOptions(label_smoothing=0.2), weights=weights).epoch(0)
    rows = np.argsort(batch.indices)
    np.testing.assert_allclose(batch.targets[rows], [[0.9, 0.9], [0.1, 0.9], [0.1, 0.1]], atol=1e-6)
    np.testing.assert_allclose(batch.weights[rows], [9 / 8, 3 / 4, 1])


def test_a_image_that_is_gone_is_named(dataset: Dataset, tmp_path: Path) -> None:
    gone = replace(dataset, train=(*dataset.train, Example(str(tmp_path / "gone.jpg"), (0,))))
    for augmentation in (None, STRONG):
        with pytest.raises(ImageError, match=r"gone\.jpg"):
            list(Batches(gone, PROCESSOR, BatchOptions(augmentation=augmentation)).epoch(0))


def test_an_empty_split_has_no_batches(dataset: Dataset) -> None:
    batches = Batches(dataset, PROCESSOR, split="test")
    assert len(batches) == 0 and list(batches.epoch()) == []


def test_memory_is_bounded_at_large_sizes(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Batches(dataset, PROCESSOR, BatchOptions(4))._ahead() == 8
    monkeypatch.setattr(module, "NATIVE_EDGE", 2240)
    assert Batches(dataset, NATIVE, BatchOptions(64))._ahead() * 2240 * 2240 * 12 <= 2**27


# --- sizes


def test_native_resolution_is_trained_at_one_size(dataset: Dataset) -> None:
    for options in (BatchOptions(15), BatchOptions(15, augmentation=STRONG)):
        batches = Batches(dataset, NATIVE, options)
        (batch,) = batches.epoch(0)
        assert batch.pixels.shape == (15, 224, 224, 3)
        assert batches.image_processor.output_size(300, 500) == (224, 224)
    assert sized(ImageProcessor(NATIVE.config, patch_size=16)).output_size(9, 9) == (224, 224)


def test_a_processor_of_fixed_size_is_used_as_it_is() -> None:
    assert sized(PROCESSOR) is PROCESSOR


def test_a_processor_that_keeps_the_long_edge_is_cropped_to_one_shape() -> None:
    config = replace(ImageProcessorConfig.default(EDGE), do_center_crop=False)
    assert sized(ImageProcessor(config)).output_size(40, 90) == (EDGE, EDGE)


def test_an_unknown_split_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="there is no split 'dev'"):
        Batches(dataset, PROCESSOR, split="dev")
