"""Labelled images in every form, and refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.labelled import image, named, table, touched
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_aimv2.datasets.labelled import read_dataset
from mlx_aimv2.datasets.record import split_record
from mlx_aimv2.errors import InputError

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


CELLS = st.text(st.sampled_from("a.jpg,;\t\"'\n\r[]{}:\\\0\u00e9\ufeff path label split train"), max_size=60)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
