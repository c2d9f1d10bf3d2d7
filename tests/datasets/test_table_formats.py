"""Formats of tables: delimiters, quotes, encodings, JSON, COCO, Karpathy, Parquet."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from helpers.labelled import table, touched
from helpers.tables import CAPTIONS, LABELS, captions, labels, refused, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_aimv2.datasets.captioned import has_captions, read_captions
from mlx_aimv2.datasets.labelled import read_dataset
from mlx_aimv2.datasets.tables import read_table
from mlx_aimv2.errors import InputError, MissingExtraError


def test_what_open_clip_and_kaggle_have(tmp_path: Path) -> None:
    table = write(
        tmp_path / "cc.tsv", "filepath\ttitle\turl\na.jpg\ta dog\thttp://x\nb.jpg\ta cat, asleep\thttp://y\n"
    )
    assert captions(table) == CAPTIONS
    table = write(tmp_path / "captions.txt", 'image,caption\na.jpg,a dog\nb.jpg,"a cat, asleep"\n')
    assert captions(table) == CAPTIONS
    flickr = "image_name| comment_number| comment\na.jpg| 0| a dog\nb.jpg| 0| a cat, asleep\n"
    assert captions(write(tmp_path / "results.csv", flickr)) == CAPTIONS


def test_what_excel_and_windows_write(tmp_path: Path) -> None:
    touched(tmp_path, "images/a.jpg", "images/b.jpg")
    text = "sep=;\r\nFile Name;Label\r\nimages\\a.jpg;cat\r\nimages\\b.jpg;dog\r\n"
    for encoding in ("utf-8-sig", "utf-16"):
        dataset = read_dataset(write(tmp_path / "t.csv", text.encode(encoding)), val_fraction=0)
        assert labels(dataset) == {"images/a.jpg": ("cat",), "images/b.jpg": ("dog",)}


def test_rows_are_counted_with_the_one_that_excel_writes_in_front(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "sep=;\npath;label\na.jpg;cat\nb.jpg;\n")
    assert refused(table) == "t.csv, row 4: no label"
    table = write(tmp_path / "t.csv", 'sep=;\npath;label\na.jpg;"cat\n')
    assert refused(table).startswith("t.csv, row 3: not valid CSV")


def test_line_ends_and_other_separators_inside_quotes(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", 'path,caption\na.jpg,"a\ndog"\nb.jpg,a\u2028cat\x0c,\n')
    assert captions(table) == {"a.jpg": ("a dog",), "b.jpg": ("a cat",)}
    assert "row 3: the path 'no\\x0b.jpg' holds a control" in refused(
        write(tmp_path / "u.csv", "path,label\na.jpg,x\nno\x0b.jpg,y")
    )


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.text(string.printable, min_size=1)), min_size=1, max_size=6
    ),
    st.sampled_from(",\t;|"),
    st.permutations(["path", "caption", "note"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_written_as_csv_is_read_again(
    tmp_path: Path, rows: list[tuple[str, str]], delimiter: str, names: list[str]
) -> None:
    import csv
    import io

    rows = [(name, text) for name, text in rows if text.split() and not set(text) & set("\x1c\x1d\x1e\x1f")]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, delimiter=delimiter)
    writer.writeheader()
    writer.writerows({"path": f"{name}.jpg", "caption": text, "note": delimiter} for name, text in rows)
    table = write(tmp_path / "t.csv", stream.getvalue())
    expected: dict[str, list[str]] = {}
    for name, text in rows:
        known = expected.setdefault(f"{name}.jpg", [])
        known += [words for words in [" ".join(text.split())] if words not in known]
    if rows:
        assert captions(table) == {name: tuple(each) for name, each in expected.items()}


COCO = {
    "info": {},
    "images": [
        {"id": 7, "file_name": "a.jpg"},
        {"id": 9, "file_name": "b.jpg"},
        {"id": 11, "file_name": "c.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 9, "caption": "a cat, asleep"},
        {"id": 2, "image_id": 7, "caption": "a dog"},
        {"id": 3, "image_id": 7, "caption": "one dog "},
    ],
}


def test_captions_of_coco(tmp_path: Path) -> None:
    file = write(tmp_path / "c.json", json.dumps(COCO))
    dataset = read_captions(file, val_fraction=0)
    assert captions(file) == {"a.jpg": ("a dog", "one dog"), "b.jpg": ("a cat, asleep",)}
    assert dataset.notices == (f"1 image of {file} without a caption: left out",)
    assert has_captions(file)
    assert "c.json holds captions and no labels: use --task contrastive" in refused(file)


@pytest.mark.parametrize("folder", ["val2017", "images/val2017", "images", "annotations/val2017"])
def test_captions_of_coco_lie_beside_the_folder_of_the_images(tmp_path: Path, folder: str) -> None:
    touched(tmp_path / folder, "a.jpg", "b.jpg")
    file = tmp_path / "annotations" / "captions_val2017.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({**COCO, "images": COCO["images"][:2]}))  # type: ignore[index]
    dataset = read_captions(file, val_fraction=0)
    assert [Path(x.path).resolve() for x in dataset.train] == [
        (tmp_path / folder / x).resolve() for x in ("a.jpg", "b.jpg")
    ]
    assert f"{tmp_path} is laid out like COCO: name the file of captions, {file}" in refused(tmp_path)


def test_other_files_of_coco_are_refused(tmp_path: Path) -> None:
    boxes = {**COCO, "annotations": [{"image_id": 7, "bbox": [0, 0, 1, 1], "category_id": 1}]}
    message = refused(write(tmp_path / "instances.json", json.dumps(boxes)))
    assert message.startswith(
        "instances.json, annotation 1: no caption: of COCO's files only captions_*.json are read"
    )


def test_splits_of_karpathy(tmp_path: Path) -> None:
    touched(tmp_path, "val2014/x.jpg")
    images = [
        {"filename": "a.jpg", "split": "restval", "sentences": [{"raw": "a dog"}, {"raw": "one dog"}]},
        {"filename": "b.jpg", "split": "test", "sentences": [{"raw": "a cat"}]},
        {"filepath": "val2014", "filename": "x.jpg", "split": "val", "sentences": [{"raw": "a cow"}]},
    ]
    file = write(tmp_path / "dataset_coco.json", json.dumps({"images": images, "dataset": "coco"}))
    assert captions(file) == {"a.jpg": ("a dog", "one dog")}
    assert captions(file, "test") == {"b.jpg": ("a cat",)} and captions(file, "val") == {
        "val2014/x.jpg": ("a cow",)
    }


def test_a_list_of_objects_in_json_with_a_mark(tmp_path: Path) -> None:
    rows = [{"image_path": "a.jpg", "class": "cat"}, {"file": "b.jpg", "label": "dog"}]
    lines = "\r".join(json.dumps(row) for row in rows)  # as old programs for the Mac end lines
    assert labels(read_dataset(write(tmp_path / "t.jsonl", lines), val_fraction=0)) == LABELS
    file = write(tmp_path / "t.json", b"\xef\xbb\xbf" + json.dumps(rows, indent=2).encode())
    assert labels(read_dataset(file, val_fraction=0)) == LABELS
    assert "u.json, row 1: has to be an object such as" in refused(write(tmp_path / "u.json", "[1]"))
    assert "v.json: not valid JSON (" in refused(write(tmp_path / "v.json", "[{]"))
    assert "w.json: not valid JSON (" in refused(write(tmp_path / "w.json", "[" * 100_000))
    assert "x.json is not a list of objects" in refused(write(tmp_path / "x.json", '{"a.jpg": "cat"}'))
    assert "y.json names no images" in refused(write(tmp_path / "y.json", "[]"))


def test_parquet(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {
        "n": [1, 2],
        "file_name": ["a.jpg", "b.jpg"],
        "label": ["cat", "dog"],
        "text": [["a dog"], ["a cat, asleep"]],
    }
    file = write(tmp_path / "t.parquet", b"")
    parquet.write_table(arrow.table(columns), file, row_group_size=1)
    assert labels(read_dataset(file, val_fraction=0)) == LABELS
    assert captions(file) == CAPTIONS and not has_captions(file)
    parquet.write_table(
        arrow.table({"image": [{"bytes": b"x", "path": "a.jpg"}], "label": [3]}), tmp_path / "i.parquet"
    )
    assert "i.parquet holds the images themselves in its column image: save each as a file" in refused(
        tmp_path / "i.parquet"
    )
    parquet.write_table(arrow.table({"label": [3]}), tmp_path / "n.parquet")
    assert "n.parquet: no column for image: the columns are 'label'" in refused(tmp_path / "n.parquet")
    assert "cannot be read as Parquet: " in refused(write(tmp_path / "broken.parquet", b"PAR1 no"))


def test_parquet_needs_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(
        MissingExtraError, match=r"Reading Parquet files needs the package pyarrow: pip install"
    ):
        read_table(write(tmp_path / "t.parquet", b""))


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json", "t.parquet", "metadata.csv"])
def test_a_pointer_or_a_web_page_in_place_of_a_table(tmp_path: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    assert f"{name} is a Git LFS pointer: run `git lfs pull`" in refused(write(tmp_path / name, pointer))
    assert f"{name} is a web page: download" in refused(write(tmp_path / name, "<!DOCTYPE html><html>"))


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", "")
    file.write_bytes("path,label\na.jpg,cat\nb.jpg,caf\u00e9\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"t\.csv, line 3, byte offset 30: not UTF-8: save it as UTF-8"):
        read_dataset(file)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["t.csv", "t.json", "t.jsonl", "t.txt", "t.parquet"]), st.binary(max_size=80))
def test_any_bytes_are_a_table_or_refused_in_one_line(tmp_path: Path, name: str, data: bytes) -> None:
    file = write(tmp_path / name, data)
    for read in (read_dataset, read_captions, has_captions):
        try:
            read(file)
        except InputError as error:
            assert "\n" not in str(error)
