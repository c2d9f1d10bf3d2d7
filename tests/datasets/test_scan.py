"""The first pass over images: what is said of those that cannot be used, and of what was left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.labelled import PROCESSOR, class_folders, touched

from mlx_aimv2.datasets.labelled import read_dataset
from mlx_aimv2.datasets.scan import NAMED, announce, scan, shortened
from mlx_aimv2.events import Event, Notice, Skipped
from mlx_aimv2.finetuning.run import finetune


def test_the_first_broken_images_are_named_and_the_others_counted(tmp_path: Path) -> None:
    class_folders(tmp_path, cat=3, dog=3)
    touched(tmp_path, *(f"cat/broken{k:02}.jpg" for k in range(NAMED + 5)))
    events: list[Event] = []
    left = scan(read_dataset(tmp_path, val_fraction=0), PROCESSOR, events.append)
    skipped = [event for event in events if isinstance(event, Skipped)]
    assert len(skipped) == NAMED + 1 and len(left.train) == 6
    assert skipped[0].source == str(tmp_path / "cat" / "broken00.jpg")
    assert skipped[-1] == Skipped(str(tmp_path), "5 more images that cannot be used", 5)


def test_the_report_says_what_of_the_data_was_used(options: Any, own_data: Path) -> None:
    (own_data / "red" / "bad.png").write_bytes(b"no image")
    touched(own_data, "red/raw.nef")
    (own_data / "grey").mkdir()
    finished = finetune(options(data=str(own_data), epochs=1))
    account = json.loads((finished.folder / "report" / "data.json").read_text())
    reason = "not an image that can be read"
    assert account == {
        "root": str(own_data),
        "images": {"train": 15, "val": 3, "test": 0},
        "notices": [
            "left out 1 file: 1 .nef (camera raw)",
            f"the class folder {own_data / 'grey'} holds no images: left out",
        ],
        "skipped": [{"path": str(own_data / "red" / "bad.png"), "reason": account["skipped"][0]["reason"]}],
    }
    assert reason in account["skipped"][0]["reason"]


def test_a_single_further_one_is_named_as_well() -> None:
    each = [Skipped(str(k), "broken") for k in range(NAMED + 1)]
    assert shortened(each, "data") == each and shortened([], "data") == []


def test_what_was_left_out_is_said(tmp_path: Path) -> None:
    class_folders(tmp_path, cat=1, dog=1)
    touched(tmp_path, "cat/a.nef")
    events: list[Event] = []
    announce(read_dataset(tmp_path, val_fraction=0), events.append)
    assert events == [Notice("left out 1 file: 1 .nef (camera raw)")]


def test_a_second_run_in_the_folder_of_the_data_sees_the_same_classes(
    options: Any, own_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(own_data)
    first = finetune(options(data=".", adapter_path="adapters", epochs=1))
    events: list[Event] = []
    second = finetune(options(data=".", adapter_path="again", epochs=1), events.append)
    assert first.evaluation.to_dict()["per_class"] == second.evaluation.to_dict()["per_class"]
    assert Notice("left out 1 folder that mlx-aimv2 wrote: adapters") in events
    assert options(data=".", exclude=("x",)).reading.avoid == (options(data=".").adapter_path,)
