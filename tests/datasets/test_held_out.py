"""Which images are measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from mlx_aimv2.datasets.captioned import read_captions
from mlx_aimv2.datasets.held_out import SplitChoice, choose_splits
from mlx_aimv2.datasets.labelled import read_dataset
from mlx_aimv2.datasets.record import file_mark, file_marks, split_record
from mlx_aimv2.errors import InputError
from mlx_aimv2.events import Notice, Skipped


@pytest.fixture
def data(tmp_path):
    """Two classes of five images, and the folder of a training with its record."""
    for label, red in (("cat", 9), ("dog", 200)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (8, 8), (red, 3 * number, 0)).save(tmp_path / "data" / label / f"{number}.png")
    (tmp_path / "run").mkdir()
    write_record(tmp_path / "run", read_dataset(tmp_path / "data", val_fraction=0.4))
    return tmp_path / "data"


def write_record(folder, dataset, **more):
    record = {**split_record(dataset), "files": file_marks(dataset), **more}
    (folder / "splits.json").write_text(json.dumps(record))


def chosen(data, adapter_path=None, read=read_dataset, **asked):
    """The images to measure by file name, and what was said of them."""
    events = []
    dataset, splits = choose_splits(read, data, adapter_path, SplitChoice(**asked), events.append)
    paths = [each.path for split in splits for each in dataset.split(split)]
    return paths, [event.message for event in events if isinstance(event, Notice)]


def test_in_the_data_of_the_training_what_it_held_out(data):
    trained = read_dataset(data, val_fraction=0.4)
    paths, said = chosen(data, data.parent / "run")
    assert sorted(paths) == sorted(each.path for each in trained.val) and not said
    paths, _ = chosen(data, data.parent / "run", split="train")
    assert sorted(paths) == sorted(each.path for each in trained.train)


def test_a_row_whose_image_is_missing_is_no_new_image(data):
    rows = [f"{path.relative_to(data)},{path.parent.name}" for path in sorted(data.rglob("*.png"))]
    (data / "t.csv").write_text("\n".join(["path,label", *rows, "gone.png,cat"]))
    events = []
    choose_splits(read_dataset, data / "t.csv", data.parent / "run", SplitChoice(), events.append)
    assert events == [
        Notice(f"1 of 11 images of {data / 't.csv'} missing: skipped"),
        Skipped(str(data / "gone.png"), "it cannot be read"),
    ]


def test_new_images_are_left_out_and_lost_ones_are_missed_by_nobody(data):
    before, _ = chosen(data, data.parent / "run")
    Image.new("RGB", (8, 8), "blue").save(data / "cat" / "new.png")
    gone = before.pop()
    Path(gone).unlink()
    paths, said = chosen(data, data.parent / "run")
    assert sorted(paths) == sorted(before)
    assert said == ["1 image that the training did not know: left out; --split all measures all"]
    paths, said = chosen(data, data.parent / "run", split="all")
    assert (len(paths), said) == (10, ["6 of 10 images were trained on"])


def test_images_that_training_could_not_read_are_not_new(data):
    (data / "cat" / "broken.png").write_bytes(b"no image")
    dataset = read_dataset(data, val_fraction=0.4)
    marks = {**file_marks(dataset), "cat/broken.png": file_mark(data / "cat" / "broken.png")}
    record = split_record(dataset)
    for split in ("train", "val"):
        record[split].pop("cat/broken.png", None)
    record |= {"files": marks, "skipped": ["cat/broken.png"]}
    (data.parent / "run" / "splits.json").write_text(json.dumps(record))
    assert chosen(data, data.parent / "run")[1] == []


@pytest.mark.parametrize("change", ["renamed", "moved", "below another folder", "a part"])
def test_what_was_trained_on_is_known_by_its_content(data, tmp_path, change):
    """Wherever it lies and whatever it is called."""
    held_out, _ = chosen(data, tmp_path / "run")
    bytes_of = {Path(path).read_bytes() for path in held_out}
    if change == "renamed":
        for path in list(data.rglob("*.png")):
            path.rename(path.with_name(f"other-{path.name}"))
    elif change == "a part":
        trained = sorted(set(data.rglob("*.png")) - set(map(Path, held_out)))
        for path in set(data.rglob("*.png")) - set(map(Path, held_out[:2])) - {trained[0], trained[-1]}:
            path.unlink()
    else:
        data = data.rename(tmp_path / "new")
    if change == "below another folder":
        (tmp_path / "over").mkdir()
        data = data.rename(tmp_path / "over" / "train").parent
    paths, _ = chosen(data, tmp_path / "run")
    found = {Path(path).read_bytes() for path in paths}
    assert found == ({Path(path).read_bytes() for path in held_out[:2]} if change == "a part" else bytes_of)


def test_other_data_as_a_whole(data, tmp_path):
    (tmp_path / "new" / "cat").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (9, 9), (0, 0, number)).save(tmp_path / "new" / "cat" / f"{number}.png")
    paths, said = chosen(tmp_path / "new", tmp_path / "run")
    assert (len(paths), said) == (
        3,
        [f"no image of {tmp_path / 'new'} was known to the training in {tmp_path / 'run'}"],
    )


def test_what_training_never_saw_is_measured_where_nothing_else_was_held_out(data, tmp_path):
    write_record(tmp_path / "run", read_dataset(data, val_fraction=0))
    Image.new("RGB", (8, 8), "blue").save(data / "cat" / "new.png")
    assert [path.rpartition("/")[2] for path in chosen(data, tmp_path / "run")[0]] == ["new.png"]


@pytest.mark.parametrize("asked", [{"val_fraction": 0.2}, {"seed": 3}])
def test_data_of_the_training_is_not_split_otherwise(data, tmp_path, asked):
    with pytest.raises(
        InputError, match=r"--val-fraction and --seed would mix what was trained on in .*: leave them out"
    ):
        chosen(data, tmp_path / "run", **asked)


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
    record["files"] = file_marks(read_captions(file))
    (tmp_path / "run" / "splits.json").write_text(json.dumps(record))
    assert [path.rpartition("/")[2] for path in chosen(file, tmp_path / "run", read_captions)[0]] == ["4.png"]


def test_a_part_is_held_out_when_asked(data):
    assert len(chosen(data, val_fraction=0.2)[0]) == 2
    assert chosen(data, seed=1)[0] != chosen(data, seed=2)[0]


def test_nothing_to_measure_is_refused(data):
    with pytest.raises(
        InputError,
        match="no images in the split test, only in train 10: choose with --split, or give a --val-fraction",
    ):
        chosen(data, split="test")
