"""Labelled data in every form, its splits, its record, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.labelled import PROCESSOR, class_folders, image, table, touched
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_aimv2.datasets.labelled import Dataset, Example, read_dataset
from mlx_aimv2.datasets.options import Reading
from mlx_aimv2.datasets.record import file_marks, split_record
from mlx_aimv2.datasets.scan import scan
from mlx_aimv2.datasets.splits import held_out
from mlx_aimv2.errors import InputError
from mlx_aimv2.events import Event, Progress, Skipped


def named(dataset: Dataset) -> dict[str, list[tuple[str, str]]]:
    """Each split as (path from the root, labels)."""
    root = Path(dataset.root)
    return {
        split: [
            (Path(x.path).relative_to(root).as_posix(), "+".join(dataset.labels[label] for label in x.labels))
            for x in dataset.split(split)
        ]
        for split in ("train", "val", "test")
    }


# --- forms


def test_a_folder_per_class(tmp_path: Path) -> None:
    touched(tmp_path, "class10/a.jpg", "class2/x/b.PNG", "class2/c.webp", "class1/d.jpg")
    touched(
        tmp_path,
        ".git/e.jpg",
        "class1/.hidden.jpg",
        "class1/notes.txt",
        "class2/.thumbnails/f.jpg",
        "README.md",
    )
    dataset = read_dataset(tmp_path, val_fraction=0)
    assert dataset.labels == ("class1", "class2", "class10")
    assert named(dataset)["train"] == [
        ("class1/d.jpg", "class1"),
        ("class10/a.jpg", "class10"),
        ("class2/c.webp", "class2"),
        ("class2/x/b.PNG", "class2"),
    ]
    assert (dataset.val, dataset.test, dataset.multi_label, dataset.counts()) == ((), (), False, (1, 2, 1))


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_folders_for_the_splits(tmp_path: Path, val: str) -> None:
    touched(
        tmp_path, "train/cat/a.jpg", "train/dog/b.jpg", f"{val}/cat/c.jpg", "test/dog/d.jpg", "notes/x.txt"
    )
    (tmp_path / val / "unknown").mkdir()  # without images it does no harm
    dataset = read_dataset(tmp_path)
    assert dataset.notices == ("left out 1 file: 1 other (.txt)",)
    touched(tmp_path, "extra/cat/e.jpg", "f.jpg")
    assert read_dataset(tmp_path).notices[1:] == (
        f"2 images outside of test/, train/ and {val}/, such as f.jpg: left out",
    )
    assert named(dataset) == {
        "train": [("train/cat/a.jpg", "cat"), ("train/dog/b.jpg", "dog")],
        "val": [(f"{val}/cat/c.jpg", "cat")],
        "test": [("test/dog/d.jpg", "dog")],
    }
    assert dataset.val_fraction is None


def test_validation_is_held_out_where_only_train_and_test_are_given(tmp_path: Path) -> None:
    touched(
        tmp_path,
        *(f"{split}/{name}/{k}.jpg" for split in ("train", "test") for name in "ab" for k in range(5)),
    )
    dataset = read_dataset(tmp_path)
    assert [len(dataset.split(split)) for split in ("train", "val", "test")] == [8, 2, 10]
    assert dataset.val_fraction == 0.2


def test_classes_may_be_called_like_splits(tmp_path: Path) -> None:
    touched(tmp_path, "train/a.jpg", "bus/b.jpg", "test/c.jpg")
    assert read_dataset(tmp_path, val_fraction=0).labels == ("bus", "test", "train")


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    touched(tmp_path / "elsewhere", "a.jpg")
    touched(tmp_path / "data", "dog/b.jpg")
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    assert named(read_dataset(tmp_path / "data"))["train"] == [("cat/a.jpg", "cat"), ("dog/b.jpg", "dog")]


def test_an_empty_class_folder_is_named_and_left_out(tmp_path: Path) -> None:
    touched(tmp_path, "cat/a.jpg", "dog/b.jpg", "owl/c.dng", "owl/d.dng")
    (tmp_path / "hen").mkdir()
    dataset = read_dataset(tmp_path)
    assert dataset.labels == ("cat", "dog") and dataset.skipped == ()
    assert dataset.notices == (
        "left out 2 files: 2 .dng (camera raw)",
        f"the class folder {tmp_path / 'hen'} holds no images: left out",
        f"the class folder {tmp_path / 'owl'} holds no images: left out",
    )


def test_thumbnails_and_what_a_run_wrote_are_no_data(tmp_path: Path) -> None:
    class_folders(tmp_path, cat=4, dog=4)
    before = read_dataset(tmp_path)
    touched(
        tmp_path,
        "cat/@eaDir/00.png/SYNOPHOTO_THUMB_M.jpg",
        "@eaDir/cat/x.jpg",
        "adapters/report/confusion.png",
    )
    (tmp_path / "adapters" / "task.json").write_text('{"format": 1, "base": {}}')
    touched(tmp_path, "begun/notes.png")
    dataset = read_dataset(tmp_path, reading=Reading(avoid=(str(tmp_path / "begun"), "/nowhere")))
    assert (dataset.labels, dataset.train, dataset.val) == (before.labels, before.train, before.val)
    assert dataset.notices == (
        "left out 2 folders: @eaDir (2); 2 folders that mlx-aimv2 wrote: adapters, begun",
    )
    assert "begun" in read_dataset(tmp_path).labels


def test_what_is_excluded_is_no_data(tmp_path: Path) -> None:
    touched(tmp_path, "cat/a.jpg", "dog/b.jpg", "dog/raw/c.jpg", "maybe/d.jpg")
    dataset = read_dataset(tmp_path, val_fraction=0, reading=Reading(exclude=("raw", "maybe")))
    assert named(dataset)["train"] == [("cat/a.jpg", "cat"), ("dog/b.jpg", "dog")]
    assert dataset.notices == ("left out 2 excluded folders: dog/raw, maybe",)


TABLES = {
    "comma.csv": "path,label\na.jpg,cat\nb.jpg,dog\nc.jpg,cat\n",
    "semicolon.csv": "label;path\ncat;a.jpg\ndog;b.jpg\ncat;c.jpg",
    "tab.tsv": "Image\tNote\tCLASS\na.jpg\tx,y\tcat\nb.jpg\t\tdog\nc.jpg\t\tcat\n",
    "windows.csv": "\ufefffilename,labels\r\na.jpg,cat\r\n\r\nb.jpg,dog\r\n./c.jpg,cat,\r\n",
    "quoted.csv": '"file","label"\n"a.jpg"," cat "\n"b.jpg","dog"\n"c.jpg","cat"\n',
    "twice.csv": "path,label\nc.jpg,cat\nb.jpg,dog\na.jpg,cat\n./a.jpg,cat\n",
    "lines.jsonl": '{"path": "a.jpg", "label": "cat"}\n{"Image": "b.jpg", "labels": ["dog"]}\n\n'
    '{"file": "c.jpg", "class": "cat", "other": {}}',
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(tmp_path: Path, name: str) -> None:
    dataset = read_dataset(table(tmp_path / name, TABLES[name]), val_fraction=0)
    assert named(dataset)["train"] == [("a.jpg", "cat"), ("b.jpg", "dog"), ("c.jpg", "cat")]
    assert (dataset.labels, dataset.multi_label) == (("cat", "dog"), False)


def test_absolute_paths_in_a_table(tmp_path: Path) -> None:
    far, near = image(tmp_path / "far" / "x.png"), tmp_path / "data" / "a.jpg"
    rows = f"path,label\n{near},cat\n{far},dog\n../far/x.png,dog\n"  # the last two are one image
    dataset = read_dataset(table(tmp_path / "data" / "t.csv", rows))
    assert split_record(dataset)["train"] == {"a.jpg": ["cat"], str(far): ["dog"]}


def test_a_column_for_the_split(tmp_path: Path) -> None:
    rows = "a.jpg,cat,train\nb.jpg,dog,\nc.jpg,cat,Validation\nd.jpg,dog,test\n"
    assert named(read_dataset(table(tmp_path / "t.csv", "path,label,split\n" + rows))) == {
        "train": [("a.jpg", "cat"), ("b.jpg", "dog")],
        "val": [("c.jpg", "cat")],
        "test": [("d.jpg", "dog")],
    }


def test_a_table_for_each_split(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", "path,label\na.jpg,cat\nb.jpg,dog\n")
    table(tmp_path / "valid.jsonl", '{"path": "c.jpg", "label": "dog"}')
    touched(tmp_path, "images/x.jpg", "train/y.jpg")  # places for images
    dataset = read_dataset(tmp_path)
    assert named(dataset)["val"] == [("c.jpg", "dog")] and len(dataset.train) == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", "path,labels\na.jpg,red; round\nb.jpg,round\nc.jpg,[]\n"),
        ("t.csv", 'path,labels\na.jpg,"[""red"", ""round""]"\nb.jpg,round;\nc.jpg,[]\n'),
        (
            "t.jsonl",
            '{"path": "a.jpg", "labels": ["round", "red", "red"]}\n{"path": "b.jpg", "labels": "round"}\n'
            '{"path": "c.jpg", "labels": []}',
        ),
    ],
)
def test_several_labels(tmp_path: Path, name: str, text: str) -> None:
    dataset = read_dataset(table(tmp_path / name, text), val_fraction=0)
    assert dataset.multi_label and dataset.labels == ("red", "round")
    assert [example.labels for example in dataset.train] == [(0, 1), (1,), ()]


def test_labels_may_be_numbers_or_hold_brackets_and_accents_of_either_form(tmp_path: Path) -> None:
    dataset = read_dataset(
        table(tmp_path / "t.jsonl", '{"path": "a.jpg", "label": 10}\n{"path": "b.jpg", "label": 9}')
    )
    assert dataset.labels == ("9", "10")
    accents = "path,label\na.jpg,caf\u00e9\nb.jpg,cafe\u0301\nc.jpg,[x\n"
    assert read_dataset(table(tmp_path / "u.csv", accents)).labels == ("[x", "caf\u00e9")


# --- splits


def test_splits_are_stratified(tmp_path: Path) -> None:
    counts = {"one": 1, "two": 2, "five": 5, "ten": 10, "many": 103}
    touched(tmp_path, *(f"{name}/{k}.jpg" for name, count in counts.items() for k in range(count)))
    dataset = read_dataset(tmp_path)
    assert dict(zip(dataset.labels, dataset.counts("val"), strict=True)) == {
        "one": 0,
        "two": 1,
        "five": 1,
        "ten": 2,
        "many": 21,
    }
    assert not {x.path for x in dataset.val} & {x.path for x in dataset.train}
    assert len(dataset.val) + len(dataset.train) == sum(counts.values())


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.floats(0, 0.999, exclude_max=True),
    st.integers(0, 2**70),
)
def test_every_class_keeps_a_training_image_and_gets_a_validation_image(
    counts: list[int], fraction: float, seed: int
) -> None:
    labels = {f"{c}/{k}": (c,) for c, count in enumerate(counts) for k in range(count)}
    out = Counter(labels[path][0] for path in held_out(labels, fraction, seed))
    for c, count in enumerate(counts):
        assert out[c] < count
        assert (out[c] >= 1) == (count >= 2 and fraction > 0)
        assert abs(out[c] - fraction * count) <= 1


@given(st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=60), st.integers(0, 9))
def test_classes_of_images_with_several_labels_keep_training_images(sets: list[set[int]], seed: int) -> None:
    labels = {str(k): tuple(sorted(each)) for k, each in enumerate(sets)}
    out = held_out(labels, 0.3, seed)
    everywhere = {label for each in sets for label in each}
    assert {label for path, each in labels.items() if path not in out for label in each} == everywhere


def test_a_split_is_the_same_wherever_the_folder_is_and_whatever_order_the_disk_has(tmp_path: Path) -> None:
    names = [f"{name}/{k}.jpg" for name in ("cat", "dog") for k in range(20)]
    first = read_dataset(touched(tmp_path / "first", *names), seed=3)
    second = read_dataset(touched(tmp_path / "some" / "where" / "else", *reversed(names)), seed=3)
    assert named(first) == named(second)
    rows = [f"{tmp_path}/first/{name},{name[:3]}" for name in reversed(names)]
    third = read_dataset(table(tmp_path / "first" / "t.csv", "\n".join(["path,label", *rows])), seed=3)
    assert named(first) == named(third)
    assert named(second) != named(read_dataset(second.root, seed=4))


def test_a_split_is_the_same_on_every_machine_and_in_every_version() -> None:
    labels = {f"{name}/{k}.jpg": (name == "dog",) for name in ("cat", "dog") for k in range(5)}
    assert held_out(labels, 0.4, seed=0) == {"dog/3.jpg", "cat/1.jpg", "dog/2.jpg", "cat/3.jpg"}


def test_later_images_leave_most_of_a_split_where_it_was() -> None:
    labels: dict[str, tuple[int, ...]] = {f"{k}.jpg": (0,) for k in range(100)}
    before = held_out(labels, 0.2, seed=0)
    after = held_out(labels | {f"new{k}.jpg": (0,) for k in range(10)}, 0.2, seed=0)
    assert len(before & after) >= 15


# --- records


def test_a_record_holds_labels_and_splits(tmp_path: Path) -> None:
    rows = "a.jpg,red;round\nb.jpg,round\nc.jpg,red\nd.jpg,red\n"
    dataset = read_dataset(
        table(tmp_path / "here" / "t.csv", "path,labels\n" + rows), val_fraction=0.5, seed=7
    )
    record = json.loads(json.dumps(split_record(dataset)))
    assert (record["seed"], record["val_fraction"], record["labels"]) == (7, 0.5, ["red", "round"])
    assert {**record["train"], **record["val"]}["a.jpg"] == ["red", "round"]
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    moved = read_dataset(tmp_path / "there" / "t.csv", val_fraction=0.5, seed=7)
    assert split_record(moved) == record and file_marks(moved) == file_marks(dataset)
    (tmp_path / "there" / "b.jpg").write_bytes(b"another image")
    assert file_marks(moved)["b.jpg"] != file_marks(dataset)["b.jpg"]
    (tmp_path / "there" / "b.jpg").unlink()
    with pytest.raises(
        InputError, match=r"b\.jpg cannot be read any more: put it back, or take it out of the data"
    ):
        file_marks(moved)


def test_relative_data_has_the_same_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched(tmp_path, *(f"{name}/{k}.jpg" for name in "ab" for k in range(3)))
    monkeypatch.chdir(tmp_path)
    assert split_record(read_dataset(".")) == split_record(read_dataset(tmp_path))


def test_a_class_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    for name in ("ok", "l\udcff"):
        image(tmp_path / name / "a.jpg")
    with pytest.raises(InputError, match=r"the class name 'l\\udcff' is no valid UTF-8: rename it"):
        read_dataset(tmp_path)


# --- the first pass


def test_broken_images_are_named_and_left_out(tmp_path: Path) -> None:
    class_folders(tmp_path, cat=6, dog=6)
    (tmp_path / "cat" / "02.png").write_bytes(b"no image")
    whole = (tmp_path / "dog" / "03.png").read_bytes()
    (tmp_path / "dog" / "03.png").write_bytes(whole[: len(whole) // 2])
    dataset = read_dataset(tmp_path)
    events: list[Event] = []
    scanned = scan(dataset, PROCESSOR, events.append)
    skipped = sorted(event.source for event in events if isinstance(event, Skipped))
    assert skipped == [str(tmp_path / "cat" / "02.png"), str(tmp_path / "dog" / "03.png")]
    assert events[-1] == Progress("checking images", 12, 12)
    for split in ("train", "val", "test"):
        assert scanned.split(split) == tuple(x for x in dataset.split(split) if x.path not in skipped)


def test_a_class_whose_training_images_are_all_broken_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path, cat=4, dog=1)
    (tmp_path / "dog" / "00.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"^3 training images left, but none of 'dog': add some, or leave"):
        scan(read_dataset(tmp_path), PROCESSOR)


def test_a_split_whose_images_are_all_broken_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", cat=1, dog=1)
    touched(tmp_path, "val/cat/a.jpg")
    with pytest.raises(InputError, match=r"no image of the val split of .* can be read \(1 image\): replace"):
        scan(read_dataset(tmp_path), PROCESSOR)


def test_data_without_a_single_good_image_is_refused(tmp_path: Path) -> None:
    touched(tmp_path, "cat/a.jpg", "dog/b.jpg")
    with pytest.raises(
        InputError, match=r"no image of the train split of .* can be read \(2 images\): replace"
    ):
        scan(read_dataset(tmp_path), PROCESSOR)


# --- refusals

HEAD = "path,label\na.jpg,cat\nb.jpg,dog\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "t.csv",
            "",
            r"t\.csv: no header: begin with path,label",
        ),
        (
            "t.csv",
            "a.jpg,cat\nb.jpg,dog\n",
            r"t\.csv: no column for image and label: the columns are 'a\.jpg', 'cat': call them path and label",
        ),
        ("t.csv", "path,label\n", r"t\.csv names no images: add a row with path and label"),
        (
            "t.csv",
            "path,image,label\n",
            r"the columns path and image may all hold the image: choose with --image-column$",
        ),
        (
            "t.csv",
            "path,label\na.jpg,cat\n",
            r"there is only one class, 'cat', in .*t\.csv: a classifier needs",
        ),
        ("t.csv", HEAD + ",cat\n", r"^t\.csv, row 4: no path of an image$"),
        ("t.csv", HEAD + "\nc.jpg, \n", r"^t\.csv, row 5: no label$"),
        ("t.csv", HEAD + "c.jpg\n", r"^t\.csv, row 4: no label$"),
        ("t.csv", HEAD + "c.jpg,;\n", r"^t\.csv, row 4: no label$"),
        ("t.csv", HEAD + "c.jpg,cat,dog\n", r"row 4: 3 fields, but the header has 2: put what contains the"),
        (
            "t.csv",
            "path,label\nx.jpg,cat\n",
            r"the only image of .*t\.csv does not exist, such as x\.jpg \(row 2\): paths are relative to the folder",
        ),
        (
            "t.csv",
            "path,label\n\nx.jpg,cat\ny.jpg,dog\n",
            r"not one of the 2 images of .* exists, such as x\.jpg \(row 3\): .*; --image-root names another$",
        ),
        ("t.csv", "path,label\n" + "x" * 5000 + ",cat\n", "the only image of .* does not exist"),
        (
            "t.csv",
            HEAD + 'c.jpg,"cat\n',
            r"t\.csv, row 4: no valid CSV \(unexpected end of data\): check the quotes",
        ),
        ("t.csv", HEAD + '"c".jpg,cat\n', r"t\.csv, row 4: no valid CSV \(',' expected after '\"'\)"),
        (
            "t.csv",
            HEAD + "c.jpg," + "x" * 200_000,
            r"t\.csv, row 4: no valid CSV \(field larger than field limit",
        ),
        ("t.csv", HEAD + "c\0.jpg,cat\n", r"t\.csv, line 4, byte offset 32: a NUL byte, so it is no text"),
        ("t.csv", HEAD + '"c\n.jpg",cat\n', r"row 4: the path 'c\\n\.jpg' holds a control character"),
        (
            "t.csv",
            HEAD + "a.jpg,dog\n",
            r"t\.csv, row 4: a\.jpg is labelled 'dog', but in t\.csv, row 2 'cat': put",
        ),
        (
            "t.csv",
            "path,label,split\na.jpg,cat,dev\n",
            r"row 2: the split is 'dev', but has to be train, val or test",
        ),
        ("t.csv", "path,label,split\na.jpg,cat,test\n", r"t\.csv holds no images for training"),
        (
            "t.csv",
            "path,label,split\na.jpg,cat,train\nb.jpg,dog,train\na.jpg,cat,val\n",
            r"^t\.csv, row 4: a\.jpg is in the split val, but in train too \(t\.csv, row 2\): keep it in one",
        ),
        (
            "t.csv",
            "path,label,split\na.jpg,cat,train\nb.jpg,dog,train\nc.jpg,Cat,val\n",
            r"^t\.csv, row 4: the label 'Cat' in val is not in training, which has 'cat', 'dog': correct it",
        ),
        ("t.jsonl", "", r"t\.jsonl names no images"),
        ("t.jsonl", '{"path": "a.jpg"', r"^t\.jsonl, row 1: no valid JSON \("),
        ("t.jsonl", "[" * 100_000, r"row 1: no valid JSON \("),
        ("t.jsonl", '{"path": ' + "1" * 5000 + "}", r"row 1: no valid JSON \("),
        ("t.jsonl", '{"path": "' + "x" * 1_000_001 + '"}', "row 1: longer than 1,000,000 characters"),
        ("t.jsonl", '["a.jpg", "cat"]', r"row 1: has to be an object such as \{"),
        (
            "t.jsonl",
            '{"label": "cat"}',
            "row 1: no column for image: the columns are 'label': call one of them path, or",
        ),
        ("t.jsonl", '{"path": 3, "label": "cat"}', "row 1: the path is 3, but has to be a text"),
        (
            "t.jsonl",
            '{"path": "a\\u0000.jpg", "label": "cat"}',
            r"row 1: the path 'a\\x00.jpg' holds a control",
        ),
        ("t.jsonl", '{"path": "\\ud800", "label": "cat"}', r"row 1: the path '\\ud800' holds a control"),
        ("t.jsonl", '{"path": "a.jpg", "label": null}', "row 1: no label"),
        ("t.jsonl", '{"path": "a.jpg", "label": 1.5}', r"row 1: the label is 1\.5, but has to be a text"),
        ("t.jsonl", '{"path": "a.jpg", "label": true}', "row 1: the label is True, but has to be a text"),
        ("t.jsonl", '{"path": "a.jpg", "label": [" "]}', "row 1: an empty label"),
        (
            "t.jsonl",
            '{"path": "a.jpg", "label": "x", "class": "y"}',
            r"the columns label and class may all hold the label: choose with --label-column$",
        ),
        (
            "t.md",
            HEAD,
            r"t\.md is no table of images: name a folder, or a file that ends in \.csv, \.tsv",
        ),
    ],
)
def test_tables_with_mistakes_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(table(tmp_path / name, text))
    assert "\n" not in str(caught.value)


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", "")
    file.write_bytes("path,label\na.jpg,cat\nb.jpg,caf\u00e9\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"t\.csv, line 3, byte offset 30: not UTF-8: save it as UTF-8"):
        read_dataset(file)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no folder per class: put the images of each class into one"),
        (["a.jpg", "b.jpg"], "holds no folder per class"),
        (["cat/a.jpg"], "there is only one class, 'cat', in .*; with folders, name the one that holds"),
        (
            ["cat/a.jpg", "dog/notes.txt"],
            r"only one class, 'cat', .*; left out 1 file: 1 other \(\.txt\); the class folder .*/dog holds no images",
        ),
        (
            ["cat/n.txt", "dog/n.dng"],
            r"no class folder of .* holds images: it holds 2 files: 1 \.dng \(camera raw\), 1",
        ),
        (
            ["cat/a.jpg", "dog/b.jpg", "c.jpg"],
            r"^1 image in .* beside the class folders, such as c\.jpg: move each",
        ),
        (["train/a.jpg", "val/b.jpg"], "/train holds no folder per class"),
        (["val/cat/a.jpg"], "holds val/ but no train/: add it, with a folder per class"),
        (
            ["train/cat/a.jpg", "train/dog/b.jpg", "val/bird/c.jpg"],
            r"val/bird/c\.jpg: the label 'bird' in val is not in training, which has 'cat', 'dog'",
        ),
        (["train/a/a.jpg", "val/a/a.jpg", "valid/a/a.jpg"], "holds both val/ and valid/: keep one of them"),
        (
            ["cat/a.jpg", "dog/b.jpg", "labels.csv"],
            r"holds labels\.csv beside the folder cat, which may be its",
        ),
        (
            ["a.jpg", "labels.csv"],
            r"holds labels\.csv, which may be its labels or not: name the file .*labels\.csv",
        ),
        (["train.csv", "train/cat/a.jpg"], r"holds train\.csv beside the folder train, which may"),
        (["val.csv"], r"holds val\.csv but no train\.csv or train\.jsonl"),
        (["train.csv", "train.jsonl"], r"holds both train\.csv and train\.jsonl: keep one of them"),
    ],
)
def test_folders_with_mistakes_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_dataset(touched(tmp_path, *names))


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    for name in ("nowhere", "nowhere.csv", "x" * 5000, "nul\0"):
        with pytest.raises(InputError, match=r"name a folder of images, or a \.csv or \.jsonl file"):
            read_dataset(tmp_path / name)


def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.0, 20, float("nan"), True, "0.2", None])
def test_fractions_that_are_none_are_refused(tmp_path: Path, fraction: Any) -> None:
    with pytest.raises(InputError, match=r"val_fraction is .*, but has to be a number from 0"):
        read_dataset(tmp_path, val_fraction=fraction)


@pytest.mark.parametrize("seed", [-1, 1.5, True, None])
def test_seeds_that_are_none_are_refused(tmp_path: Path, seed: Any) -> None:
    with pytest.raises(InputError, match=r"seed is .*, but has to be a whole number"):
        read_dataset(tmp_path, seed=seed)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(InputError, match="there is no split 'dev': choose among train, val, test"):
        Dataset((Example("a.jpg", (0,)),), labels=("a", "b"), multi_label=False).split("dev")


CELLS = st.text(st.sampled_from("a.jpg,;\t\"'\n\r[]{}:\\\0\u00e9\ufeff path label split train"), max_size=60)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([".csv", ".jsonl"]),
    st.sampled_from(["", "path,label\n", "path;label;split\n", '{"path": "a.jpg", "label": "x"}\n']),
    st.one_of(CELLS, st.text(max_size=60)),
)
def test_any_text_is_a_table_or_refused_in_one_line(
    tmp_path: Path, suffix: str, head: str, text: str
) -> None:
    file = tmp_path / f"t{suffix}"
    touched(tmp_path, "a.jpg")
    file.write_bytes((head + text).encode("utf-8", "surrogatepass"))
    try:
        dataset = read_dataset(file)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(dataset.labels) >= 2 or dataset.multi_label
