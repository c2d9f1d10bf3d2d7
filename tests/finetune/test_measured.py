"""Which pictures are measured."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from mlx_aimv2.errors import InputError
from mlx_aimv2.events import Notice
from mlx_aimv2.finetune.captions import read_captions
from mlx_aimv2.finetune.dataset import read_dataset
from mlx_aimv2.finetune.measured import Measure, as_in_training, measured
from mlx_aimv2.finetune.record import split_record


@pytest.fixture
def data(tmp_path):
    """Two classes of five pictures, and the folder of a training with its record."""
    for label in ("cat", "dog"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (8, 8)).save(tmp_path / "data" / label / f"{number}.png")
    (tmp_path / "run").mkdir()
    record = split_record(read_dataset(tmp_path / "data", val_fraction=0.4))
    (tmp_path / "run" / "splits.json").write_text(json.dumps(record))
    return tmp_path / "data"


def chosen(data, adapter_path=None, read=read_dataset, **asked):
    """The pictures to measure by file name, and what was said of them."""
    events = []
    dataset, splits = measured(read, data, adapter_path, Measure(**asked), events.append)
    paths = [each.path for split in splits for each in dataset.split(split)]
    return paths, [event.message for event in events if isinstance(event, Notice)]


def test_in_the_data_of_the_training_what_it_held_out(data):
    trained = read_dataset(data, val_fraction=0.4)
    paths, said = chosen(data, data.parent / "run")
    assert sorted(paths) == sorted(each.path for each in trained.val) and not said
    paths, _ = chosen(data, data.parent / "run", split="train")
    assert sorted(paths) == sorted(each.path for each in trained.train)


def test_new_pictures_are_in_no_split_and_lost_ones_are_missed_by_nobody(data):
    before, _ = chosen(data, data.parent / "run")
    Image.new("RGB", (8, 8)).save(data / "cat" / "new.png")
    (data / "dog" / "3.png").unlink()
    paths, said = chosen(data, data.parent / "run")
    assert set(paths) == {path for path in before if not path.endswith("dog/3.png")}
    assert said == ["newer than the training, and in no split of it: 1 picture; --split all measures all"]
    assert len(chosen(data, data.parent / "run", split="all")[0]) == 10


def test_other_data_as_a_whole(data, tmp_path):
    data.rename(tmp_path / "moved")
    for path in list((tmp_path / "moved").rglob("*.png"))[:2]:
        path.rename(path.with_name(f"other-{path.name}"))
    paths, said = chosen(tmp_path / "moved", tmp_path / "run")
    assert len(paths) == 10
    assert "is not the data of the training in" in said[0]


@pytest.mark.parametrize("split", ["val", "test"])
def test_data_with_its_own_split_by_that(data, tmp_path, split):
    (tmp_path / "own" / split).mkdir(parents=True)
    data.rename(tmp_path / "own" / "train")
    (tmp_path / "own" / split / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "own" / split / "cat" / "a.png")
    assert [path.rpartition("/")[2] for path in chosen(tmp_path / "own")[0]] == ["a.png"]


def test_captions_too(data, tmp_path):
    lines = [json.dumps({"path": f"data/cat/{number}.png", "caption": "a cat"}) for number in range(5)]
    (tmp_path / "words.jsonl").write_text("\n".join(lines))
    file = tmp_path / "words.jsonl"
    assert len(chosen(file, read=read_captions)[0]) == 5
    assert len(chosen(file, read=read_captions, val_fraction=0.4)[0]) == 2
    record = {"train": [f"data/cat/{number}.png" for number in range(4)], "val": ["data/cat/4.png"]}
    (tmp_path / "run" / "splits.json").write_text(json.dumps(record))
    assert [path.rpartition("/")[2] for path in chosen(file, tmp_path / "run", read_captions)[0]] == ["4.png"]


def test_a_part_is_held_out_when_asked(data):
    assert len(chosen(data, val_fraction=0.2)[0]) == 2
    assert chosen(data, seed=1)[0] != chosen(data, seed=2)[0]


def test_nothing_to_measure_is_refused(data):
    with pytest.raises(
        InputError,
        match="no pictures in the split test, only in train 10: choose with --split, or give a --val-fraction",
    ):
        chosen(data, split="test")


def test_the_record_of_other_data(data):
    assert as_in_training(read_dataset(data), {"train": {"a.png": ["cat"]}}) is None
    assert as_in_training(read_dataset(data), {}) is None
