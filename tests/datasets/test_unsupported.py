"""Files and layouts that are not supported, each with advice."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.labelled import touched
from helpers.tables import refused


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
        assert f"{tmp_path / name} is not a table of images: {words}" in refused(tmp_path / name, task)
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
