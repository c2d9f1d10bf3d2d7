"""The files of the world."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from drawn_world import world
from drawn_world.examples import close_up_examples, recolored_examples, training_example
from drawn_world.painting import Conditions
from drawn_world.scenes import LABELS
from drawn_world.world import WorldOptions, write_world
from helpers.held_out import HELD_OUT_LABELS
from PIL import Image

from mlx_aimv2.datasets.class_folders import read_folders
from mlx_aimv2.datasets.options import Reading
from mlx_aimv2.datasets.tree import read_tree
from mlx_aimv2.errors import InputError, OutputError
from mlx_aimv2.events import Progress

SMALL = WorldOptions(train=12, close_ups=24, recolored=8, val=3, zero_shot=15, retrieval=5, side=28)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("demo") / "world", SMALL, processes=1)


def test_captions_name_the_images_of_training(folder):
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    assert [row["split"] for row in rows] == ["train"] * 12 + ["val"] * 3
    for index, row in enumerate(rows[:12]):
        example = training_example(index)
        assert row["caption"] == example.caption
        with Image.open(folder / row["path"]) as image:
            assert image.tobytes() == example.image(28).tobytes()


def test_names_are_of_things_in_any_colour_and_as_many_others(folder):
    named = [json.loads(line) for line in (folder / "names.jsonl").read_text().splitlines()]
    recolored, shown = named[:8], named[8:16]
    assert [row["path"] for row in recolored] == [f"recolored/000/{k:06d}.png" for k in range(8)]
    assert [row["path"] for row in shown] == [f"train/000/{k:06d}.png" for k in range(8)]
    assert [row["split"] for row in named] == ["train"] * 16 + ["val"] * 3
    assert [row["caption"] for row in recolored] == [example.caption for example in recolored_examples(8)]
    assert [row["caption"] for row in shown] == [training_example(k).named().caption for k in range(8)]
    with Image.open(folder / recolored[5]["path"]) as image:
        assert image.tobytes() == recolored_examples(8)[5].image(28).tobytes()


def test_close_ups_have_a_shape_and_a_caption_each(folder):
    close_ups = folder / "close_ups"
    with (close_ups / "shapes.csv").open(newline="") as stream:
        shapes = [(row["path"], row["label"]) for row in csv.DictReader(stream)]
    captions = [json.loads(line) for line in (close_ups / "captions.jsonl").read_text().splitlines()]
    examples = close_up_examples(24)
    assert shapes == [(f"000/{k:06d}.png", one.scene.thing.shape) for k, one in enumerate(examples)]
    assert captions == [
        {"path": f"000/{k:06d}.png", "caption": one.caption} for k, one in enumerate(examples)
    ]
    with Image.open(close_ups / shapes[3][0]) as image:
        assert image.size == (14, 14) and image.tobytes() == examples[3].image(28).tobytes()


def test_zero_shot_images_lie_in_folders_of_their_labels(folder):
    assert tuple((folder / "labels.txt").read_text().splitlines()) == LABELS
    source = read_folders(read_tree(folder / "zeroshot", Reading()))
    assert sorted(row.labels[0] for row in source.rows) == sorted(HELD_OUT_LABELS)


def test_retrieval_images_have_their_captions(folder):
    with (folder / "retrieval" / "captions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["path", "caption"]
    assert len({row["caption"] for row in rows}) == 5
    assert all((folder / "retrieval" / row["path"]).is_file() for row in rows)


def test_processes_do_not_change_the_files(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(world, "CHUNK", 12)
    seen = []
    again = write_world(tmp_path / "again", SMALL, processes=2, on_event=seen.append)
    assert content(again) == content(folder)
    assert seen[0] == Progress("drawing", 0, 67) and seen[-1] == Progress("drawing", 67, 67)
    assert [event.done for event in seen] == sorted(event.done for event in seen)


def test_seed_and_conditions_change_the_files(folder, tmp_path):
    clear = Conditions(0, 0, 0, 0, 0)
    for name, options in {"seed": replace(SMALL, seed=1), "clear": replace(SMALL, conditions=clear)}.items():
        other = content(write_world(tmp_path / name, options, processes=1))
        one = "train/000/000000.png"
        assert other[one] != content(folder)[one]
        assert (other["captions.jsonl"] == content(folder)["captions.jsonl"]) == (name == "clear")


def test_sets_may_be_left_out(tmp_path):
    only = replace(SMALL, close_ups=0, recolored=0, val=0, zero_shot=0, retrieval=0)
    files = content(write_world(tmp_path / "world", only, processes=1))
    assert sorted(name for name in files if not name.endswith(".png")) == [
        "captions.jsonl",
        "close_ups/captions.jsonl",
        "close_ups/shapes.csv",
        "labels.txt",
        "names.jsonl",
        "retrieval/captions.csv",
    ]
    named = [json.loads(line)["path"] for line in files["names.jsonl"].decode().splitlines()]
    assert named == [f"train/000/{k:06d}.png" for k in range(12)]


def test_refuses_a_folder_that_exists(tmp_path):
    with pytest.raises(OutputError, match="exists already: name another folder, or remove it"):
        write_world(tmp_path, SMALL)


@pytest.mark.parametrize("processes", [1, 2])
def test_leaves_nothing_half_written(tmp_path, monkeypatch, processes):
    monkeypatch.setattr(world, "CHUNK", 12)

    def stop(event):
        if event.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_world(tmp_path / "world", SMALL, processes, stop)
    assert not list(tmp_path.iterdir())


def die(*_):
    os._exit(1)


def test_a_process_that_dies_is_told_of_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(world, "CHUNK", 12)
    monkeypatch.setattr(world, "_draw_chunk", die)
    with pytest.raises(OutputError, match=r'ended early: .* under `if __name__ == "__main__":`') as caught:
        write_world(tmp_path / "world", SMALL, processes=2)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 0}, "train is 0, but has to be from 1 to 10,000,000"),
        ({"val": -1}, "val is -1, but has to be from 0 to 10,000,000"),
        ({"side": 20}, "side is 20, but has to be from 28 to 1,024"),
    ],
)
def test_refuses_numbers_out_of_range(change, message):
    with pytest.raises(InputError, match=message):
        replace(SMALL, **change)


def test_refuses_no_processes(tmp_path):
    with pytest.raises(InputError, match="processes is 0, but has to be from 1 to 1,024"):
        write_world(tmp_path / "world", SMALL, processes=0)
