"""Data of other programs on the command line: what is said of it, and the exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from mlx_aimv2.cli.app import app

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture
def split_tables(tmp_path: Path) -> Path:
    """An imagefolder of Hugging Face: `metadata.csv` in `train/` and `validation/`, with one row too many."""
    for split, count in (("train", 4), ("validation", 2)):
        rows = ["file_name,category"]
        for name, colour in COLOURS.items():
            for k in range(count):
                path = tmp_path / split / "images" / f"{name}{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40, 40), colour).save(path)
                rows.append(f"images/{name}{k}.png,{name}")
        rows.append("images/gone.png,red")
        (tmp_path / split / "metadata.csv").write_text("\n".join(rows))
    return tmp_path


def test_metadata_in_splits_is_evaluated_and_a_missing_row_is_named(split_tables: Path) -> None:
    done = run("evaluate", "--data", split_tables, "-m", "demo", "--json")
    assert done.exit_code == 1, done.output  # it could not do one thing, and did the rest
    found = json.loads(done.stdout)
    assert found["images"] == 4 and set(found["labels"]) == set(COLOURS)
    gone = split_tables / "validation" / "images" / "gone.png"
    assert [each["path"] for each in found["skipped"]] == [str(gone)]
    assert f"skipped {gone}: cannot be read: No such file or directory" in done.stderr


def test_metadata_in_splits_is_trained_on(split_tables: Path, tmp_path: Path) -> None:
    given = ["--data", split_tables, "-m", "demo", "--fine-tune-type", "linear", "--epochs", 1, "--json"]
    done = run("finetune", *given, "--adapter-path", tmp_path / "out", "--label-column", "category")
    assert done.exit_code == 1, done.output
    assert json.loads(done.stdout)["images"] == 4
    record = json.loads((tmp_path / "out" / "splits.json").read_text())
    assert record["skipped"] == ["train/images/gone.png", "validation/images/gone.png"]
    assert len(record["train"]) == 8 and len(record["val"]) == 4
    again = run(
        "evaluate", "--data", split_tables, "-m", "demo", "--adapter-path", tmp_path / "out", "--json"
    )
    assert json.loads(again.stdout)["images"] == 4


def test_the_options_of_tables(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), COLOURS["red"]).save(tmp_path / "a.png")
    table = tmp_path / "tables" / "t.csv"
    table.parent.mkdir()
    table.write_text("where|kind|said\na.png|red|a red square\n")
    given = [
        "evaluate",
        "--data",
        table,
        "-m",
        "demo",
        "--image-column",
        "where",
        "--image-root",
        tmp_path,
        "--json",
    ]
    done = run(*given)
    assert (
        done.exit_code == 2 and "no column for label: the columns are 'where', 'kind', 'said'" in done.stderr
    )
    assert "for captions, caption or --caption-column" in done.stderr
    done = run(*given, "--label-column", "kind", "--labels", "red,blue")
    assert json.loads(done.stdout)["labels"] == ["red", "blue"], done.output
    done = run(*given, "--caption-column", "said")
    assert json.loads(done.stdout)["captions"] == 1, done.output
    done = run("finetune", "--data", table, "--caption-column", "said")
    assert done.exit_code == 2 and "--caption-column" in done.stderr


def test_what_is_left_out_is_said_by_every_verb_that_takes_folders(
    split_tables: Path, tmp_path: Path
) -> None:
    folder = split_tables / "train" / "images"
    (folder / "x.raw").touch()
    (folder / "@eaDir").mkdir()
    said = "left out 1 file: 1 .raw (camera raw); 1 folder: @eaDir"
    convert = ["convert", "--model", "demo", "--mlx-path", tmp_path / "new", "--dry-run"]
    for given in (
        ["compare", "demo", "demo", folder],
        [*convert, "-q", "--calibrate", folder, "--q-bits", "4", "--q-group-size", "32"],
        [*convert, "--report-images", folder],
    ):
        done = run(*given)
        assert said in done.stderr, done.output
        done = run(*given, "--exclude", "*.raw", "--exclude", "red*")
        assert "left out 5 files: 5 excluded; 1 folder: @eaDir" in done.stderr, done.output
