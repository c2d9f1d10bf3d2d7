"""Class folders: splits, classes called like splits, what is left out, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.labelled import image, named, touched

from mlx_aimv2.datasets.labelled import read_dataset
from mlx_aimv2.errors import InputError


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
    touched(tmp_path, "cat/a.jpg", "dog/b.jpg", "owl/c.raw", "owl/d.raw")
    (tmp_path / "hen").mkdir()
    dataset = read_dataset(tmp_path)
    assert dataset.labels == ("cat", "dog") and dataset.skipped == ()
    assert dataset.notices == (
        "left out 2 files: 2 .raw (camera raw)",
        f"the class folder {tmp_path / 'hen'} holds no images: left out",
        f"the class folder {tmp_path / 'owl'} holds no images: left out",
    )


def test_a_class_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    for name in ("ok", "l\udcff"):
        image(tmp_path / name / "a.jpg")
    with pytest.raises(InputError, match=r"the class name 'l\\udcff' is not valid UTF-8: rename it"):
        read_dataset(tmp_path)


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
            ["cat/n.txt", "dog/n.raw"],
            r"no class folder of .* holds images: it holds 2 files: 1 \.raw \(camera raw\), 1",
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
