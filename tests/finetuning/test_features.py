"""Features on disk: computed once, gone on with, never mistaken for others."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2 import load
from mlx_aimv2.datasets.labelled import read_dataset
from mlx_aimv2.errors import NonFiniteError, OutputError
from mlx_aimv2.events import Progress
from mlx_aimv2.finetuning import features as module
from mlx_aimv2.finetuning.features import FeatureEpochs, compute_features
from mlx_aimv2.models.classifier import Classifier
from mlx_aimv2.models.classifier_heads import make_head
from mlx_aimv2.training.batches import Batches, BatchOptions, shuffled


class Split:
    """A split of the coloured images with an encoder that counts what it is asked."""

    def __init__(self, data, checkpoint, folder, pooling="mean", batch_size=4):
        trunk, processor = load(checkpoint, dtype="float32")
        head = make_head(
            {"kind": "attentive", "heads": 2} if pooling == "attentive" else {"kind": "linear"}, 64, 3
        )
        self.classifier, self.folder, self.made_by = Classifier(trunk, head, pooling), folder, {"base": "a"}
        self.dataset = read_dataset(data)
        self.processor, self.batch_size, self.asked, self.events = (
            processor.image_processor,
            batch_size,
            0,
            [],
        )
        encode = self.classifier.features

        def features(pixels):
            self.asked += len(pixels)
            return encode(pixels)

        object.__setattr__(self.classifier, "features", features)

    def compute(self, dataset=None):
        dataset = dataset or self.dataset
        self.asked = 0
        batches = Batches(dataset, self.processor, BatchOptions(self.batch_size), training=False)
        return compute_features(
            self.classifier, batches, dataset.train, self.made_by, self.folder, self.events.append
        )


@pytest.fixture
def split(own_data, tiny_vision, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 8)
    return Split(own_data, tiny_vision, tmp_path / "features")


def test_features_are_the_encoders_in_the_order_of_the_examples(split):
    found = split.compute()
    pixels = mx.array(np.stack([split.processor(example.path) for example in split.dataset.train]))
    expected = split.classifier.trunk(pixels).last_hidden_state.mean(axis=1)
    assert found.shape == (15, 64) and found.dtype == np.float32
    np.testing.assert_allclose(found, np.array(expected), atol=1e-5)
    progress = [event for event in split.events if isinstance(event, Progress)]
    assert [event.done for event in progress] == [0, 4, 8, 12, 15] and progress[-1].total == 15


def test_the_second_time_the_encoder_is_not_asked(split):
    first = split.compute()
    assert split.asked == 15
    np.testing.assert_array_equal(split.compute(), first)
    assert split.asked == 0
    assert len(list(split.folder.iterdir())) == 2


def test_what_was_cut_short_goes_on_where_it_was(split, monkeypatch):
    first = split.compute()
    (last := sorted(split.folder.iterdir())[-1]).unlink()
    np.testing.assert_array_equal(split.compute(), first)
    assert split.asked == 7 and last.exists()


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00", b"nothing"])
def test_a_damaged_file_is_computed_again(split, damage):
    first = split.compute()
    file = sorted(split.folder.iterdir())[0]
    file.write_bytes(damage)
    np.testing.assert_array_equal(split.compute(), first)
    assert split.asked == 15


def test_a_file_that_lost_images_is_computed_again(split):
    first = split.compute()
    for file in split.folder.iterdir():
        np.save(file, np.load(file)[:-1])
    np.testing.assert_array_equal(split.compute(), first)
    assert split.asked == 15


def test_a_file_with_a_pickle_in_it_is_not_run(split):
    split.compute()
    file = sorted(split.folder.iterdir())[0]
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    split.compute()
    assert split.asked == 15


def test_a_image_that_changed_is_seen_again(split):
    first = split.compute()
    path = Path(split.dataset.train[0].path)
    path.write_bytes(Path(split.dataset.train[-1].path).read_bytes())
    second = split.compute()
    assert split.asked == 15
    np.testing.assert_allclose(second[0], first[-1], atol=1e-5)
    os.utime(path, ns=(1, 1))
    split.compute()
    assert split.asked == 15


@pytest.mark.parametrize("batch_size", [1, 3, 8, 15, 16])
def test_batches_of_any_size_find_the_same_files(split, batch_size):
    first, names = split.compute(), sorted(path.name for path in split.folder.iterdir())
    split.batch_size = batch_size
    np.testing.assert_array_equal(split.compute(), first)
    assert split.asked == 0
    split.folder = split.folder.with_name("again")
    np.testing.assert_allclose(split.compute(), first, atol=1e-5)
    assert split.asked == 15 and sorted(path.name for path in split.folder.iterdir()) == names
    split.folder.joinpath(names[1]).unlink()
    np.testing.assert_allclose(split.compute(), first, atol=1e-5)
    assert split.asked == 15 - 8 // batch_size * batch_size


def test_another_base_pooling_or_order_has_files_of_its_own(split):
    split.compute()
    split.made_by = {"base": "b"}
    split.compute()
    assert split.asked == 15
    split.compute(replace(split.dataset, train=split.dataset.train[::-1]))
    assert split.asked == 15


def test_all_tokens_of_an_image_are_kept_in_half_the_room(own_data, tiny_vision, tmp_path):
    split = Split(own_data, tiny_vision, tmp_path / "features", pooling="attentive")
    found = split.compute()
    assert found.shape == (15, 16, 64) and len(found) == 15
    assert {np.load(path).dtype for path in split.folder.iterdir()} == {np.dtype(np.float16)}
    pixels = mx.array(np.stack([split.processor(example.path) for example in split.dataset.train]))
    tokens = np.array(split.classifier.trunk(pixels).last_hidden_state)
    np.testing.assert_allclose(found[np.arange(15)], tokens, rtol=2e-3, atol=1e-4)
    assert np.array_equal(found[np.array([2, 9, 14])], found[np.arange(15)][[2, 9, 14]])


def test_tokens_stay_on_disk_and_only_some_are_in_memory(own_data, tiny_vision, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    split, read, load = Split(own_data, tiny_vision, tmp_path / "features", pooling="attentive"), [], np.load
    found = split.compute()

    def counted(path, **options):
        read.append((Path(path).name[-9:-4], options.get("mmap_mode")))
        return load(path, **options)

    monkeypatch.setattr(np, "load", counted)
    assert found[np.array([1, 5, 6])].dtype == np.float32
    assert set(read) == {("00000", "r"), ("00001", "r")}


def test_tokens_that_are_too_large_for_half_the_room_stay_what_they_are(own_data, tiny_vision, tmp_path):
    split = Split(own_data, tiny_vision, tmp_path / "features", pooling="attentive")
    norm = split.classifier.trunk.rms_norm
    norm.weight = norm.weight * 1e6
    found = split.compute()[np.arange(15)]
    assert np.isfinite(found).all() and np.abs(found).max() > 65504
    assert split.compute()[np.arange(15)].max() == found.max() and split.asked == 0


def test_features_that_are_all_zero_name_their_image(split):
    norm = split.classifier.trunk.rms_norm
    norm.weight = norm.weight * 0
    with pytest.raises(NonFiniteError, match=r"00\.png: the encoder gives nothing but zeros: the checkpoint"):
        split.compute()


def test_a_feature_that_is_not_finite_names_its_image(split):
    weight = split.classifier.trunk.embeddings.patch_embed.weight
    split.classifier.trunk.embeddings.patch_embed.weight = weight * mx.inf
    with pytest.raises(
        NonFiniteError, match=r"00\.png: the encoder gives NaN or infinity: compute in --dtype"
    ):
        split.compute()


def test_a_folder_that_cannot_be_made(split, tmp_path):
    (tmp_path / "file").touch()
    split.folder = tmp_path / "file" / "features"
    with pytest.raises(OutputError, match="features cannot be written: Not a directory"):
        split.compute()


def test_epochs_of_features_are_like_those_of_images():
    features, targets = np.arange(10)[:, None].astype(np.float16), np.eye(10, dtype=np.float32)
    epochs = FeatureEpochs(features, targets, np.arange(10, dtype=np.float32), 4, seed=1)
    whole = list(epochs.epoch(2))
    assert [len(batch.pixels) for batch in whole] == [4, 4, 2] and len(epochs) == 3
    taken = np.concatenate([batch.pixels[:, 0] for batch in whole])
    assert sorted(taken) == list(range(10)) and taken.dtype == np.float32
    for batch in whole:
        np.testing.assert_array_equal(batch.targets.argmax(axis=1), batch.pixels[:, 0])
        np.testing.assert_array_equal(batch.weights, batch.pixels[:, 0])
    for start in (1, 2, 3):
        rest = list(epochs.epoch(2, start))
        assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(rest, whole[start:], strict=True))
    assert taken.tolist() == [
        float(x) for b in range(3) for x in sorted(shuffled(10, 1, 2)[4 * b : 4 * b + 4])
    ]
    other = np.concatenate([batch.pixels[:, 0] for batch in epochs.epoch(3)])
    assert other.tolist() != taken.tolist()
