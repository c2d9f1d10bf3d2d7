"""The scan of images: broken images, empty splits and classes, notices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.labelled import PROCESSOR, class_folders, touched

from mlx_aimv2.datasets.labelled import read_dataset
from mlx_aimv2.datasets.scan import NAMED, announce, first_skipped, scan
from mlx_aimv2.errors import InputError
from mlx_aimv2.events import Event, Notice, Progress, Skipped, ignore
from mlx_aimv2.finetuning.run import finetune


def test_broken_images_are_named_and_left_out(tmp_path: Path) -> None:
    class_folders(tmp_path, cat=6, dog=6)
    (tmp_path / "cat" / "02.png").write_bytes(b"no image")
    whole = (tmp_path / "dog" / "03.png").read_bytes()
    (tmp_path / "dog" / "03.png").write_bytes(whole[: len(whole) // 2])
    dataset = read_dataset(tmp_path)
    events: list[Event] = []
    scanned = scan(dataset, PROCESSOR, events.append)
    skipped = sorted(event.source for event in events if isinstance(event, Skipped))
    assert skipped == [str(tmp_path / "cat" / "02.png"), str(tmp_path / "dog" / "03.png")]
    assert events[-1] == Progress("checking images", 12, 12)
    for split in ("train", "val", "test"):
        assert scanned.split(split) == tuple(x for x in dataset.split(split) if x.path not in skipped)


def test_a_class_whose_training_images_are_all_broken_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path, cat=4, dog=1)
    (tmp_path / "dog" / "00.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"^3 training images left, but none of 'dog': add some, or leave"):
        scan(read_dataset(tmp_path), PROCESSOR)


def test_a_split_whose_images_are_all_broken_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", cat=1, dog=1)
    touched(tmp_path, "val/cat/a.jpg")
    with pytest.raises(InputError, match=r"no image of the val split of .* can be read \(1 image\): replace"):
        scan(read_dataset(tmp_path), PROCESSOR)


def test_data_without_a_single_good_image_is_refused(tmp_path: Path) -> None:
    touched(tmp_path, "cat/a.jpg", "dog/b.jpg")
    with pytest.raises(
        InputError, match=r"no image of the train split of .* can be read \(2 images\): replace"
    ):
        scan(read_dataset(tmp_path), PROCESSOR)


def test_the_first_broken_images_are_named_and_the_others_counted(tmp_path: Path) -> None:
    class_folders(tmp_path, cat=3, dog=3)
    touched(tmp_path, *(f"cat/broken{k:02}.jpg" for k in range(NAMED + 5)))
    events: list[Event] = []
    left = scan(read_dataset(tmp_path, val_fraction=0), PROCESSOR, events.append)
    skipped = [event for event in events if isinstance(event, Skipped)]
    assert len(skipped) == NAMED + 1 and len(left.train) == 6
    assert skipped[0].source == str(tmp_path / "cat" / "broken00.jpg")
    assert skipped[-1] == Skipped(str(tmp_path), "5 more images that cannot be used", 5)


def test_a_single_further_one_is_named_as_well() -> None:
    each = [Skipped(str(k), "broken") for k in range(NAMED + 1)]
    assert first_skipped(each, "data") == each and first_skipped([], "data") == []


def test_what_was_left_out_is_said(tmp_path: Path) -> None:
    class_folders(tmp_path, cat=1, dog=1)
    touched(tmp_path, "cat/a.raw")
    events: list[Event] = []
    announce(read_dataset(tmp_path, val_fraction=0), events.append)
    assert events == [Notice("left out 1 file: 1 .raw (camera raw)")]


def test_a_run_reports_its_data_and_is_no_data_of_a_later_run(
    options: Any, own_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_data / "red" / "bad.png").write_bytes(b"no image")
    touched(own_data, "red/raw.raw")
    (own_data / "grey").mkdir()
    monkeypatch.chdir(own_data)
    run = options(data=".", adapter_path="adapters", epochs=1)
    finished = finetune(run, ignore)
    account = json.loads((finished.folder / "report" / "data.json").read_text())
    assert "not an image that can be read" in account["skipped"][0].pop("reason")
    assert account == {
        "root": ".",
        "images": {"train": 15, "val": 3, "test": 0},
        "notices": [
            "left out 1 file: 1 .raw (camera raw)",
            "the class folder grey holds no images: left out",
        ],
        "skipped": [{"path": "red/bad.png"}],
    }
    later = options(data=".", adapter_path="again", epochs=1)
    assert later.reading.avoid == ("again",)
    dataset = read_dataset(".", reading=later.reading)
    assert dataset.labels == finished.evaluation.metrics.labels
    notice = "left out 1 file: 1 .raw (camera raw); 1 folder that mlx-aimv2 wrote: adapters"
    assert dataset.notices[0] == notice
    assert read_dataset(".", reading=run.reading).labels == dataset.labels
