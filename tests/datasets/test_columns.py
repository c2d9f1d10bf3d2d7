"""Columns of tables: usual names, chosen names, missing and ambiguous columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tables import CAPTIONS, LABELS, captions, labels, refused, write

from mlx_aimv2.datasets.captioned import has_captions
from mlx_aimv2.datasets.labelled import read_dataset
from mlx_aimv2.datasets.options import Columns, Reading
from mlx_aimv2.errors import InputError


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("path", "label"),
        ("filepath", "Class"),
        ("Image Path", "category"),
        ("file-name", "target"),
        ("IMG", "tags"),
        ("image", "class_name"),
        ("filename", "Class"),
        ("image_name", "label"),
    ],
)
def test_usual_names_of_columns_with_labels(tmp_path: Path, image: str, label: str) -> None:
    table = write(tmp_path / "t.csv", f"id,{image},{label},split_no\n1,a.jpg,cat,x\n2,b.jpg,dog,y\n")
    assert labels(read_dataset(table, val_fraction=0)) == LABELS
    assert not has_captions(table)


@pytest.mark.parametrize(
    ("caption", "delimiter"),
    [
        ("caption", ","),
        ("text", "\t"),
        ("title", ";"),
        ("Sentence", "|"),
        ("description", " | "),
        ("prompt", ","),
        ("comment", "\t"),
        ("alt text", ";"),
        ("alt text", " | "),
    ],
)
def test_usual_names_of_columns_with_captions(tmp_path: Path, caption: str, delimiter: str) -> None:
    quoted = '"a cat, asleep"'
    rows = [f"filepath{delimiter}{caption}", f"a.jpg{delimiter}a dog", f"b.jpg{delimiter.strip(' ')}{quoted}"]
    table = write(tmp_path / "t.csv", "\r\n".join(rows))
    assert captions(table) == CAPTIONS and has_captions(table)


def test_columns_may_be_chosen(tmp_path: Path) -> None:
    table = write(
        tmp_path / "t.csv", "image,path,label,class,title,text\nx,a.jpg,0,cat,t,a dog\ny,b.jpg,1,dog,u,v\n"
    )
    assert (
        refused(table)
        == "t.csv: the columns image and path may all hold the image: choose with --image-column"
    )
    chosen = Columns(image="path", label="class", caption="text")
    dataset = read_dataset(table, val_fraction=0, reading=Reading(columns=chosen))
    assert labels(dataset) == LABELS
    assert captions(table, columns=chosen) == {"a.jpg": ("a dog",), "b.jpg": ("v",)}
    message = "t.csv: the columns label and class may all hold the label: choose with --label-column"
    assert refused(table, columns=Columns(image="path")) == message
    message = "t.csv: no column 'kind', as --label-column says: the columns are 'image', 'path', 'label',"
    assert message in refused(table, columns=Columns(image="path", label="kind"))
    twice = write(tmp_path / "u.csv", "path,label,label\na.jpg,x,y")
    assert refused(twice, columns=Columns(label="label")).endswith(
        "may all hold the label: rename one of them"
    )
    other = write(tmp_path / "v.csv", "where,kind\na.jpg,cat\nb.jpg,dog\n")
    columns = Columns(image="where", label="kind")
    assert labels(read_dataset(other, val_fraction=0, reading=Reading(columns=columns))) == LABELS
    assert not has_captions(other, Reading(columns=columns))
    assert has_captions(other, Reading(columns=Columns(image="where", caption="kind")))


def test_a_table_with_neither_labels_nor_captions_says_what_both_are_called(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "path,colour\na.jpg,red\n")
    with pytest.raises(InputError) as caught:
        has_captions(table)
    assert str(caught.value) == (
        "t.csv: no column for label: the columns are 'path', 'colour': call one of them label, or choose with"
        " --label-column; for captions, caption or --caption-column"
    )


def test_a_table_of_the_other_kind_says_so(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "path,title\na.jpg,x\n")
    assert refused(table).endswith("or choose with --label-column; to learn its captions: --task contrastive")
    table = write(tmp_path / "t.csv", "path,class\na.jpg,x\n")
    assert refused(table, "captions").endswith("--caption-column; to learn its labels: --task classify")
    assert "--task" not in refused(write(tmp_path / "t.csv", "title\nx\n"))


def test_addresses_are_no_files(tmp_path: Path) -> None:
    table = write(tmp_path / "t.tsv", "url\tcaption\nhttps://x/a.jpg\ta dog\n")
    assert "t.tsv: it names addresses and no files: download the images" in refused(table, "captions")
    table = write(tmp_path / "u.csv", "image,caption\nhttps://x/a.jpg,a dog\nhttps://x/b.jpg,a cat\n")
    assert "u.csv names addresses such as https://x/a.jpg: download the images" in refused(table, "captions")
