"""The tree of a folder of data: what is ignored, excluded or unreadable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.labelled import class_folders, named, touched

from mlx_aimv2.datasets.labelled import read_dataset
from mlx_aimv2.datasets.options import Reading
from mlx_aimv2.errors import InputError


def test_thumbnails_and_what_a_run_wrote_are_no_data(tmp_path: Path) -> None:
    class_folders(tmp_path, cat=4, dog=4)
    before = read_dataset(tmp_path)
    touched(
        tmp_path,
        "cat/@eaDir/00.png/SYNOPHOTO_THUMB_M.jpg",
        "@eaDir/cat/x.jpg",
        "adapters/report/confusion.png",
    )
    (tmp_path / "adapters" / "task.json").write_text('{"format": 1, "base": {}}')
    touched(tmp_path, "begun/notes.png")
    dataset = read_dataset(tmp_path, reading=Reading(avoid=(str(tmp_path / "begun"), "/nowhere")))
    assert (dataset.labels, dataset.train, dataset.val) == (before.labels, before.train, before.val)
    assert dataset.notices == (
        "left out 2 folders: @eaDir (2); 2 folders that mlx-aimv2 wrote: adapters, begun",
    )
    assert "begun" in read_dataset(tmp_path).labels


def test_what_is_excluded_is_no_data(tmp_path: Path) -> None:
    touched(tmp_path, "cat/a.jpg", "dog/b.jpg", "dog/raw/c.jpg", "maybe/d.jpg")
    dataset = read_dataset(tmp_path, val_fraction=0, reading=Reading(exclude=("raw", "maybe")))
    assert named(dataset)["train"] == [("cat/a.jpg", "cat"), ("dog/b.jpg", "dog")]
    assert dataset.notices == ("left out 2 excluded folders: dog/raw, maybe",)


def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        read_dataset(tmp_path)
