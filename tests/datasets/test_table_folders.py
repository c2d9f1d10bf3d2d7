"""Folders with tables: one for each split, metadata, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.labelled import named, table, touched
from helpers.tables import CAPTIONS, LABELS, captions, labels, refused, write

from mlx_aimv2.datasets.captioned import has_captions
from mlx_aimv2.datasets.labelled import read_dataset


def test_a_table_for_each_split(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", "path,label\na.jpg,cat\nb.jpg,dog\n")
    table(tmp_path / "valid.jsonl", '{"path": "c.jpg", "label": "dog"}')
    touched(tmp_path, "images/x.jpg", "train/y.jpg")  # places for images
    dataset = read_dataset(tmp_path)
    assert named(dataset)["val"] == [("c.jpg", "dog")] and len(dataset.train) == 2


@pytest.mark.parametrize("ending", ["csv", "jsonl", "tsv"])
@pytest.mark.parametrize("val", ["validation", "val"])
def test_an_imagefolder_with_metadata_in_each_split(tmp_path: Path, ending: str, val: str) -> None:
    for split, label in (("train", "cat"), ("train", "dog"), (val, "dog"), ("test", "cat")):
        folder = touched(tmp_path / split, f"images/{label}.jpg")
        table = folder / f"metadata.{ending}"
        if ending == "jsonl":
            line = json.dumps({"file_name": f"images/{label}.jpg", "label": label}) + "\n"
        else:
            tab = "\t" if ending == "tsv" else ","
            line = ("" if table.exists() else f"file_name{tab}label\n") + f"images/{label}.jpg{tab}{label}\n"
        with table.open("a") as stream:
            stream.write(line)
    touched(tmp_path, "train/unnamed.jpg", "README.md", "train/@eaDir/t.jpg")
    dataset = read_dataset(tmp_path)
    assert labels(dataset) == {"train/images/cat.jpg": ("cat",), "train/images/dog.jpg": ("dog",)}
    assert labels(dataset, "val") == {f"{val}/images/dog.jpg": ("dog",)}
    assert labels(dataset, "test") == {"test/images/cat.jpg": ("cat",)}
    assert dataset.notices == (
        "left out 1 file: 1 other (.md); 1 folder: @eaDir",
        "1 image that no row names, such as train/unnamed.jpg: left out",
    )
    assert not has_captions(tmp_path)


def test_an_imagefolder_with_captions_and_one_with_deep_tables(tmp_path: Path) -> None:
    write(tmp_path / "train" / "metadata.csv", 'file_name,text\na.jpg,a dog\nb.jpg,"a cat, asleep"\n')
    assert has_captions(tmp_path)
    assert captions(tmp_path) == {f"train/{name}": each for name, each in CAPTIONS.items()}
    (tmp_path / "train" / "metadata.csv").unlink()
    for part in ("one", "two"):
        touched(tmp_path / "train" / part, "x.jpg")
        (tmp_path / "train" / part / "metadata.jsonl").write_text(
            json.dumps({"file_name": "x.jpg", "text": part})
        )
    assert captions(tmp_path) == {"train/one/x.jpg": ("one",), "train/two/x.jpg": ("two",)}


def test_metadata_in_the_folder_itself(tmp_path: Path) -> None:
    write(tmp_path / "metadata.csv", "file_name,label\na.jpg,cat\nb.jpg,dog\n")
    dataset = read_dataset(tmp_path, val_fraction=0)
    assert labels(dataset) == LABELS
    assert dataset.notices == ("2 images that no row names, such as c.jpg: left out",)
    touched(tmp_path, "train/a.jpg", "train/b.jpg", "test/c.jpg")
    write(tmp_path / "metadata.csv", "file_name,label\ntrain/a.jpg,cat\ntrain/b.jpg,dog\ntest/c.jpg,cat\n")
    dataset = read_dataset(tmp_path, val_fraction=0)
    assert labels(dataset, "test") == {"test/c.jpg": ("cat",)} and len(dataset.train) == 2


def test_metadata_without_labels_leaves_them_to_the_folders(tmp_path: Path) -> None:
    touched(tmp_path, "cat/a.jpg", "dog/b.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,width\ncat/a.jpg,3\n")
    dataset = read_dataset(tmp_path, val_fraction=0)
    assert labels(dataset) == {"cat/a.jpg": ("cat",), "dog/b.jpg": ("dog",)}
    assert dataset.notices[1].startswith(
        "not used: metadata.csv: no column for label: the columns are 'file_name'"
    )
    assert not has_captions(tmp_path)
    (tmp_path / "metadata.jsonl").write_text("{}")
    assert "holds both metadata.csv and metadata.jsonl: keep one of them" in refused(tmp_path)


def test_the_mistake_of_a_table_deep_in_the_data_is_named_by_its_place(tmp_path: Path) -> None:
    write(tmp_path / "train" / "metadata.csv", "file_name,label\na.jpg,cat\nb.jpg,dog\n")
    write(tmp_path / "test" / "metadata.csv", "file_name,width\nc.jpg,1\n")
    assert refused(tmp_path).startswith(
        "test/metadata.csv: no column for label: the columns are 'file_name', 'width'"
    )
    write(tmp_path / "test" / "metadata.csv", "file_name,label\nc.jpg,\n")
    assert refused(tmp_path) == "test/metadata.csv, row 2: no label"


def test_a_split_without_a_table(tmp_path: Path) -> None:
    write(tmp_path / "train" / "labels.csv", "path,label\na.jpg,cat\nb.jpg,dog\n")
    (tmp_path / "val").mkdir()
    dataset = read_dataset(tmp_path, val_fraction=0)
    assert labels(dataset) == {"train/a.jpg": ("cat",), "train/b.jpg": ("dog",)}
    touched(tmp_path, "val/c.jpg")
    assert refused(tmp_path) == f"{tmp_path} holds train/labels.csv, but val/ has no such table: add one"
