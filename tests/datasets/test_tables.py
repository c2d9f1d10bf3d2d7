"""Tables: cells, paths of images, excluded rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.labelled import table, touched
from helpers.tables import LABELS, labels, refused, write

from mlx_aimv2.datasets.labelled import read_dataset
from mlx_aimv2.datasets.options import Reading
from mlx_aimv2.errors import InputError


def test_rows_whose_image_is_missing_stay_until_images_are_opened(tmp_path: Path) -> None:
    table = write(
        tmp_path / "t.csv", "path,label\na.jpg,cat\ngone.jpg,cat\nb.jpg,dog\n" + "x" * 5000 + ",dog\n"
    )
    dataset = read_dataset(table, val_fraction=0)
    assert [Path(x.path).name[:9] for x in dataset.train] == ["a.jpg", "b.jpg", "gone.jpg", "xxxxxxxxx"]
    assert dataset.notices == (f"2 of 4 images of {table} missing: skipped",)


def test_accents_may_be_written_otherwise_than_on_disk(tmp_path: Path) -> None:
    touched(tmp_path, "caf\u00e9.jpg", "u\u0308.jpg")
    table = write(tmp_path / "t.csv", "path,label\ncafe\u0301.jpg,x\n\u00fc.jpg,y\n")
    dataset = read_dataset(table, val_fraction=0)
    assert labels(dataset) == {"caf\u00e9.jpg": ("x",), "u\u0308.jpg": ("y",)} and not dataset.notices


def test_another_folder_for_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched(tmp_path / "images", "a.jpg", "b.jpg")
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "t.csv"
    table.write_text("path,label\na.jpg,cat\nb.jpg,dog\n")
    assert refused(table).endswith(
        "paths are relative to the folder of the table; --image-root names another"
    )
    root = str(tmp_path / "images")
    dataset = read_dataset(table, val_fraction=0, reading=Reading(image_root=root))
    assert [x.path for x in dataset.train] == [f"{root}/a.jpg", f"{root}/b.jpg"]
    assert "of .* exists" not in refused(table, image_root=str(tmp_path))
    assert f"exists in --image-root {tmp_path}, such as a.jpg (row 2)" in refused(
        table, image_root=str(tmp_path)
    )
    monkeypatch.chdir(tmp_path / "images")
    assert refused(table).endswith("they are relative to the working directory: give --image-root .")


@pytest.mark.parametrize("folder", ["images", "train", "train_images"])
def test_images_lie_where_other_programs_put_them(tmp_path: Path, folder: str) -> None:
    touched(tmp_path / folder, "a.jpg", "b.jpg")
    (tmp_path / "train.csv").write_text("image,label\na.jpg,cat\nb.jpg,dog\n")
    for data in (tmp_path, tmp_path / "train.csv"):
        found = labels(read_dataset(data, val_fraction=0))
        assert found == {f"{folder}/{name}": each for name, each in LABELS.items()}


def test_rows_may_be_excluded(tmp_path: Path) -> None:
    touched(tmp_path, "old/a.jpg")
    table = write(tmp_path / "t.csv", "path,label\na.jpg,cat\nold/a.jpg,cow\nb.jpg,dog\n")
    dataset = read_dataset(table, val_fraction=0, reading=Reading(exclude=("old",)))
    assert labels(dataset) == LABELS and dataset.notices == (f"left out 1 row of {table}: excluded",)
    assert "--exclude leaves out all of its 3 rows" in refused(table, exclude=("*",))


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
            r"t\.csv, row 4: not valid CSV \(unexpected end of data\): check the quotes",
        ),
        ("t.csv", HEAD + '"c".jpg,cat\n', r"t\.csv, row 4: not valid CSV \(',' expected after '\"'\)"),
        (
            "t.csv",
            HEAD + "c.jpg," + "x" * 200_000,
            r"t\.csv, row 4: not valid CSV \(field larger than field limit",
        ),
        ("t.csv", HEAD + "c\0.jpg,cat\n", r"t\.csv, line 4, byte offset 32: a NUL byte, so it is not text"),
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
        ("t.jsonl", '{"path": "a.jpg"', r"^t\.jsonl, row 1: not valid JSON \("),
        ("t.jsonl", "[" * 100_000, r"row 1: not valid JSON \("),
        ("t.jsonl", '{"path": ' + "1" * 5000 + "}", r"row 1: not valid JSON \("),
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
            r"t\.md is not a table of images: name a folder, or a file that ends in \.csv, \.tsv",
        ),
    ],
)
def test_tables_with_mistakes_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_dataset(table(tmp_path / name, text))
    assert "\n" not in str(caught.value)
