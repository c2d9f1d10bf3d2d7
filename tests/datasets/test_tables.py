"""Tables in every form and with every usual name, folders with tables in them, and what is refused."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from helpers.labelled import touched
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_aimv2.datasets.captioned import has_captions, read_captions
from mlx_aimv2.datasets.labelled import Dataset, read_dataset
from mlx_aimv2.datasets.options import Columns, Reading
from mlx_aimv2.datasets.tables import read_table
from mlx_aimv2.errors import InputError, MissingExtraError

CAPTIONS = {"a.jpg": ("a dog",), "b.jpg": ("a cat, asleep",)}
LABELS = {"a.jpg": ("cat",), "b.jpg": ("dog",)}


def write(file: Path, text: str | bytes) -> Path:
    """A table, and an empty file for each of `a.jpg` to `d.jpg` beside it."""
    touched(file.parent, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def labels(dataset: Dataset, split: str = "train") -> dict[str, tuple[str, ...]]:
    root = Path(dataset.root)
    return {
        Path(x.path).relative_to(root).as_posix(): tuple(dataset.labels[k] for k in x.labels)
        for x in dataset.split(split)
    }


def captions(data: Path, split: str = "train", **reading: Any) -> dict[str, tuple[str, ...]]:
    dataset = read_captions(data, val_fraction=0, reading=Reading(**reading))
    return {Path(x.path).relative_to(dataset.root).as_posix(): x.captions for x in dataset.split(split)}


def refused(data: Path, task: str = "labels", **reading: Any) -> str:
    read = read_dataset if task == "labels" else read_captions
    with pytest.raises(InputError) as caught:
        read(data, val_fraction=0, reading=Reading(**reading))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- names of columns and delimiters


@pytest.mark.parametrize(
    "image", ["path", "filepath", "Image Path", "file-name", "IMG", "image", "filename", "image_name"]
)
@pytest.mark.parametrize("label", ["label", "Class", "category", "target", "tags", "class_name"])
def test_usual_names_of_columns_with_labels(tmp_path: Path, image: str, label: str) -> None:
    table = write(tmp_path / "t.csv", f"id,{image},{label},split_no\n1,a.jpg,cat,x\n2,b.jpg,dog,y\n")
    assert labels(read_dataset(table, val_fraction=0)) == LABELS
    assert not has_captions(table)


@pytest.mark.parametrize(
    "caption", ["caption", "text", "title", "Sentence", "description", "prompt", "comment", "alt text"]
)
@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", " | "])
def test_usual_names_of_columns_with_captions(tmp_path: Path, caption: str, delimiter: str) -> None:
    quoted = '"a cat, asleep"'
    rows = [f"filepath{delimiter}{caption}", f"a.jpg{delimiter}a dog", f"b.jpg{delimiter.strip(' ')}{quoted}"]
    table = write(tmp_path / "t.csv", "\r\n".join(rows))
    assert captions(table) == CAPTIONS and has_captions(table)


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
    assert refused(table).startswith("t.csv, row 3: no valid CSV")


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


# --- JSON, Parquet


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
    assert "v.json: no valid JSON (" in refused(write(tmp_path / "v.json", "[{]"))
    assert "w.json: no valid JSON (" in refused(write(tmp_path / "w.json", "[" * 100_000))
    assert "x.json is no list of objects" in refused(write(tmp_path / "x.json", '{"a.jpg": "cat"}'))
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


# --- where the images are


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


# --- tables in folders


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


# --- what is not read


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("shard-0000.tar", "it is a tar archive, as of WebDataset: unpack it"),
        ("0001.cls", "labels in .cls files (WebDataset) are not read: list the images"),
        ("images.zip", "it is an archive: unpack it"),
        ("data.mdb", "LMDB is not read: save each image as a file"),
        ("train.tfrecord-00000-of-00008", "TFRecord is not read"),
        ("data-00000-of-00001.arrow", "it is a part of what `save_to_disk` of Hugging Face wrote"),
        ("labels.xlsx", "it is a spreadsheet: save its sheet as CSV in UTF-8"),
        ("0001.xml", "annotations in XML (Pascal VOC, LabelImg) are not read: boxes are not labels"),
        ("coco8.yaml", "YOLO's data files are not read"),
        ("digits.npz", "arrays are not read"),
        ("labels.sqlite3", "it is a database: export a table as CSV"),
        ("t.feather", "save it as CSV or Parquet"),
    ],
)
def test_files_that_are_not_read_have_a_hint(tmp_path: Path, name: str, words: str) -> None:
    touched(tmp_path, name)
    for task in ("labels", "captions"):
        assert f"{tmp_path / name} is no table of images: {words}" in refused(tmp_path / name, task)
    if ".tfrecord" not in name and name != "data.mdb":
        for task in ("labels", "captions"):
            assert f"{name}: {words}" in refused(tmp_path, task)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["images/a.jpg", "labels/a.txt", "data.yaml"], "is laid out like YOLO: boxes are not labels"),
        (["train/images/a.jpg", "train/labels/a.txt", "val/images/b.jpg"], "train is laid out like YOLO"),
        (["JPEGImages/a.jpg", "Annotations/a.xml", "SegmentationClass/a.png"], "is laid out like Pascal VOC"),
        (["train2017/a.jpg", "val2017/b.jpg", "annotations/instances_val2017.json"], "is laid out like COCO: boxes"),
        (["dataset_info.json", "state.json", "data-00000-of-00001.arrow"], "`save_to_disk` of Hugging Face wrote"),
        (["dataset_dict.json", "train/dataset_info.json"], "`save_to_disk` of Hugging Face wrote"),
        (["data.mdb", "lock.mdb"], "is an LMDB database"),
        (["data/train-00000-of-00002.parquet"], "train-00000-of-00002.parquet is a part of a data set with"),
    ],
)  # fmt: skip
def test_folders_that_are_not_read_have_a_hint(tmp_path: Path, names: list[str], words: str) -> None:
    assert words in refused(touched(tmp_path, *names))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["t.csv", "t.json", "t.jsonl", "t.txt", "t.parquet"]), st.binary(max_size=80))
def test_any_bytes_are_a_table_or_refused_in_one_line(tmp_path: Path, name: str, data: bytes) -> None:
    file = write(tmp_path / name, data)
    for read in (read_dataset, read_captions, has_captions):
        try:
            read(file)
        except InputError as error:
            assert "\n" not in str(error)
