"""Captions: every form of data, splits, and every mistake in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.labelled import touched

from mlx_aimv2.datasets.captioned import Captioned, has_captions, read_captions
from mlx_aimv2.errors import InputError
from mlx_aimv2.finetuning.caption_task import CaptionTask


def table(file: Path, text: str) -> Path:
    """A table, and an empty file for each of `a.jpg` to `f.jpg` beside it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode())
    touched(file.parent, *(f"{letter}.jpg" for letter in "abcdef"))
    return file


def folder(root: Path, **captions: str) -> Path:
    """Images with text files beside them; `__` in a name stands for a folder."""
    for name, text in captions.items():
        path = root / name.replace("__", "/")
        touched(root, f"{name.replace('__', '/')}.png")
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return root


def captions_by_name(examples: tuple[Captioned, ...]) -> dict[str, tuple[str, ...]]:
    return {Path(example.path).name: example.captions for example in examples}


@pytest.mark.parametrize(
    "header", ["path,caption", "image,text", "File_Name,SENTENCE", "filename\tDescription"]
)
def test_a_table_with_several_rows_for_an_image(tmp_path: Path, header: str) -> None:
    tab = "\t" if "\t" in header else ","
    rows = [
        header,
        tab.join(("a.jpg", "a dog")),
        tab.join(("b.jpg", '"a cat; on,\n a mat"')),
        tab.join(("a.jpg", "one dog")),
    ]
    dataset = read_captions(table(tmp_path / "c.csv", "\n".join(rows)), val_fraction=0)
    assert captions_by_name(dataset.train) == {"a.jpg": ("a dog", "one dog"), "b.jpg": ("a cat; on, a mat",)}


def test_json_lines_with_lists(tmp_path: Path) -> None:
    text = '{"path": "a.jpg", "captions": ["a dog", "one dog", "a  dog"], "split": "val"}\n'
    text += '{"path": "b.jpg", "captions": "[not] a list"}\n\n{"path": "c.jpg", "captions": ["ein Hündchen"]}'
    dataset = read_captions(table(tmp_path / "c.jsonl", text))
    assert captions_by_name(dataset.val) == {"a.jpg": ("a dog", "one dog")} and dataset.val_fraction is None
    assert captions_by_name(dataset.train) == {"b.jpg": ("[not] a list",), "c.jpg": ("ein Hündchen",)}


def test_text_files_beside_images(tmp_path: Path) -> None:
    data = folder(tmp_path, a="a dog\n\n  one   dog \n", b="a cat", deep__c="a cow")
    dataset = read_captions(data, val_fraction=0)
    assert captions_by_name(dataset.train) == {
        "a.png": ("a dog", "one dog"),
        "b.png": ("a cat",),
        "c.png": ("a cow",),
    }


def test_folders_of_splits(tmp_path: Path) -> None:
    data = folder(tmp_path, Train__a="a dog", valid__b="a cat", test__c="a cow")
    dataset = read_captions(data)
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [1, 1, 1]
    with pytest.raises(InputError, match="there is no split 'all': choose among train, val, test"):
        dataset.split("all")


def test_tables_of_splits(tmp_path: Path) -> None:
    table(tmp_path / "train.csv", "path,caption\na.jpg,a dog\nb.jpg,a cat")
    table(tmp_path / "val.csv", "path,caption\nc.jpg,a cow")
    dataset = read_captions(tmp_path)
    assert (len(dataset.train), len(dataset.val)) == (2, 1) and has_captions(tmp_path)


def test_what_is_held_out_follows_from_the_seed_and_never_splits_an_image(tmp_path: Path) -> None:
    rows = ["path,caption"] + [f"{letter}.jpg,{letter} {k}" for letter in "abcdef" for k in range(3)]
    data = table(tmp_path / "c.csv", "\n".join(rows))
    first, again, other = (read_captions(data, val_fraction=0.3, seed=seed) for seed in (1, 1, 4))
    assert first == again != other
    assert len(first.val) == 2 and len(first.train) == 4
    assert all(len(example.captions) == 3 for example in (*first.train, *first.val))
    assert CaptionTask().record(first) == CaptionTask().record(again) != CaptionTask().record(other)
    record = CaptionTask().record(first)
    assert record["seed"] == 1 and sorted(record["train"] + record["val"]) == [f"{x}.jpg" for x in "abcdef"]
    table(tmp_path / "c.csv", "\n".join(rows).replace("b 1", "b 7"))
    assert CaptionTask().record(read_captions(data, val_fraction=0.3, seed=1)) != record


def test_which_data_is_captions(tmp_path: Path) -> None:
    assert has_captions(table(tmp_path / "a.csv", "image;caption\na.jpg;x"))
    assert has_captions(table(tmp_path / "b.jsonl", '{"path": "a.jpg", "caption": "x"}'))
    assert not has_captions(table(tmp_path / "c.csv", "path,label\na.jpg,x"))
    assert not has_captions(table(tmp_path / "d.csv", "path,label,caption\na.jpg,x,y"))
    assert has_captions(folder(tmp_path / "f", a="x"))
    assert not has_captions(touched(tmp_path / "g", "cat/a.png"))
    assert not has_captions(tmp_path / "none") and not has_captions(tmp_path / "f" / "a.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.jpg,x", "c.csv: no column for caption: the columns are 'path', 'label': call"),
        ("path,caption,text\na.jpg,x,y", "c.csv: the columns caption and text may all hold the caption"),
        ("path,caption\na.jpg,  ", "c.csv, row 2: an empty caption"),
        ("path,caption\na.jpg", "c.csv, row 2: no caption"),
        ("path,caption\n,x", "c.csv, row 2: no path of an image"),
        ("path,caption\na.jpg,x\0", "c.csv, line 2, byte offset 20: a NUL byte"),
        ("path,caption\na.jpg,x\x07y", "c.csv, row 2: the caption 'x\\x07y' holds a control character"),
        ("path,caption\n", "c.csv names no images: add a row with path and caption for each"),
        ("path,caption\nno.jpg,x", "the only image of"),
        ("path,caption,split\na.jpg,x,later", "c.csv, row 2: the split is 'later', but has to be train"),
        ("path,caption,split\na.jpg,x,val\na.jpg,y,train", "c.csv, row 3: a.jpg is in the split train, but in val"),
        ("path,caption,split\na.jpg,x,val", "holds no images for training: none of its rows is in the split train"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_table_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_captions(table(tmp_path / "c.csv", text))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"path": "a.jpg", "caption": 5}', "the caption is 5, but has to be a text"),
        ('{"path": "a.jpg", "caption": []}', "row 1: no caption"),
        ('{"path": "a.jpg", "caption": null}', "row 1: no caption"),
        ('{"path": "a.jpg", "caption": ["x", ""]}', "row 1: an empty caption"),
        ("[]", 'row 1: has to be an object such as {"path": "a.jpg", "caption": "a cat on a sofa"}'),
    ],
)
def test_a_mistake_in_json_is_one_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_captions(table(tmp_path / "c.jsonl", line))
    assert message in str(caught.value)


def refused(data: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_captions(data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_without_a_caption_are_named_and_left_out(tmp_path: Path) -> None:
    touched(folder(tmp_path, a="x", d=" \n", e="y"), "b.png", "sub/c.png")
    (tmp_path / "e.txt").write_bytes(b"a\xff")
    dataset = read_captions(tmp_path, val_fraction=0)
    assert captions_by_name(dataset.train) == {"a.png": ("x",)}
    assert {Path(each.source).name: each.reason for each in dataset.skipped} == {
        "b.png": "no caption: no .txt file of its name lies beside it",
        "c.png": "no caption: no .txt file of its name lies beside it",
        "d.png": "no caption: d.txt is empty",
        "e.png": f"no caption: {tmp_path / 'e.txt'}, line 1, byte offset 1: not UTF-8: save it as UTF-8",
    }
    (tmp_path / "a.txt").unlink()
    assert refused(tmp_path) == (
        f"no caption for 5 images in {tmp_path}: write those of a.png into a.txt beside it, one in each line"
        " (no caption: no .txt file of its name lies beside it)"
    )


def test_texts_without_an_image_are_named_and_left_out(tmp_path: Path) -> None:
    (folder(tmp_path, a="x") / "notes.txt").write_text("y")
    (tmp_path / ".hidden.txt").write_text("y")
    touched(tmp_path, "@eaDir/a.txt", "raw.raw")
    dataset = read_captions(tmp_path, val_fraction=0)
    assert (captions_by_name(dataset.train), dataset.skipped) == ({"a.png": ("x",)}, ())
    assert dataset.notices == (
        "left out 2 files: 1 .raw (camera raw), 1 hidden; 1 folder: @eaDir",
        "1 text file without an image, such as notes.txt: left out",
    )


def test_data_that_is_none(tmp_path: Path) -> None:
    assert "No such file or directory: name a .csv or .jsonl file, or a folder of images" in refused(
        tmp_path / "no"
    )
    assert "holds no images: it holds nothing" in refused(tmp_path)
    table(tmp_path / "words.csv", "path,caption\na.jpg,x")
    assert "holds words.csv, which may be its captions or not: name the file" in refused(tmp_path)
    assert "is not a table of images" in refused(tmp_path / "a.jpg")
