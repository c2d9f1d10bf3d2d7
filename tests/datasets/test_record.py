"""Records of splits: contents, moved data, changed and lost images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.labelled import table, touched

from mlx_aimv2.datasets.labelled import read_dataset
from mlx_aimv2.datasets.record import file_marks, split_record
from mlx_aimv2.errors import InputError


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
