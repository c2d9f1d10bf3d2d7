"""Captions on the command line: training, what to do next, retrieval, labels among many, and every mistake."""

from __future__ import annotations

import csv
import json
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "red": (210, 50, 40), "green": (50, 190, 60)}


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    """A table of nine coloured images with captions, in a folder whose name needs quotes."""
    root, rng, rows = tmp_path_factory.mktemp("captions") / "my words", np.random.default_rng(0), []
    root.mkdir()
    for name, colour in COLOURS.items():
        for number in range(3):
            noisy = np.array(colour) + rng.normal(0, 40, (50, 50, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / f"{name}{number}.png")
            rows += [(f"{name}{number}.png", f"{name} noise {number}")] * (1 + number % 2)
    with (root / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "caption"), *rows])
    return root / "captions.csv"


@pytest.fixture(scope="module")
def trained(cli, pair, captions, tmp_path_factory):
    """A short run, and the folder that it wrote."""
    folder = tmp_path_factory.mktemp("out") / "my pair"
    arguments = ["--task", "contrastive", "-d", captions, "-m", pair, "--adapter-path", folder]
    more = ["--epochs", "2", "--batch-size", "4", "--val-fraction", "0.4", "--vision-tower", "frozen"]
    return cli("finetune", *arguments, *more), folder


def test_a_run_says_how_it_went(trained):
    done, folder = trained
    assert done.returncode == 0, done.stderr
    rows = dict(line.split("\t") for line in done.stdout.splitlines())
    assert rows["measure"] == "val" and rows["images"] == "4" and "text to image recall@5" in rows
    epochs = [line for line in done.stderr.splitlines() if "val_loss" in line]
    assert len(epochs) == 2 and "val_recall@1 " in epochs[0] and "image_to_text" not in epochs[0]
    assert "best was epoch " in done.stderr and ": recall@1 " in done.stderr
    assert {path.name for path in (folder / "report").iterdir()} == {
        "curves.png",
        "data.json",
        "evaluation.json",
    }


def test_the_next_commands_work(cli, trained, captions, tmp_path):
    lines = [line for line in trained[0].stderr.splitlines() if " mlx-aimv2 " in line]
    commands = [shlex.split(line.split("mlx-aimv2 ", 1)[1]) for line in lines]
    assert [command[0] for command in commands] == ["classify", "evaluate", "fuse"]
    places = {"photo.jpg": captions.parent / "red0.png", "fused": tmp_path / "fused"}
    for command in commands:
        found = cli(*(places.get(word, word) for word in command))
        assert found.returncode == 0, (command, found.stderr)
    assert "a dog" in cli(*(places.get(word, word) for word in commands[0])).stdout
    fused = json.loads(
        cli("evaluate", "-m", tmp_path / "fused", "--data", captions, "--split", "all", "--json").stdout
    )
    own = ["--adapter-path", trained[1], "-m", commands[2][commands[2].index("--model") + 1]]
    adapted = json.loads(cli("evaluate", *own, "--data", captions, "--split", "all", "--json").stdout)
    assert {k: fused[k] for k in fused if "recall" in k} == {k: adapted[k] for k in adapted if "recall" in k}


def test_retrieval_is_measured_zero_shot_too(cli, pair, captions, tmp_path):
    arguments = ("evaluate", "--data", captions, "-m", pair, "--split", "all")
    found = json.loads(cli(*arguments, "--json").stdout)
    assert (found["images"], found["captions"]) == (9, 9)
    ways = ("image_to_text", "text_to_image")
    assert {f"{way}_recall@{k}" for way in ways for k in (1, 5, 10)} <= set(found)
    assert found["image_to_text_recall@10"] == 1 and found["text_to_image_median_rank"] >= 1
    done = cli(*arguments, "--output", tmp_path / "report")
    assert done.stdout.splitlines()[0] == "what\tvalue" and "worst captions\timage" in done.stdout
    assert f"wrote evaluation.json to {tmp_path / 'report'}" in done.stderr


def test_what_was_held_out_in_training_is_what_is_measured(cli, trained, pair, captions):
    found = cli("evaluate", "--data", captions, "-m", pair, "--adapter-path", trained[1], "--json")
    assert json.loads(found.stdout)["images"] == 4


def test_vectors_of_the_trained_pair(cli, trained, pair, captions, probe):
    photo = captions.parent / "red0.png"

    def vector(*more):
        return json.loads(cli("embed", *more, "-m", pair).stdout)["embedding"]

    assert vector(photo) == vector(photo, "--adapter-path", trained[1])  # its image tower is frozen
    assert vector("--text", "red") != vector("--text", "red", "--adapter-path", trained[1])
    assert len(vector(photo, "--adapter-path", probe)) == 64  # the encoder of a classifier
    done = cli("embed", photo, "-m", pair, "--any-base")
    assert done.returncode == 2 and "--any-base needs --adapter-path" in done.stderr


def test_labels_among_many_more(cli, pair, shades, trained, tmp_path):
    (tmp_path / "labels.txt").write_text("dark\npurple\nbright\n\ngrey ish\ngreen\npink\norange\n")
    arguments = ("evaluate", "--data", shades, "-m", pair, "--labels", tmp_path / "labels.txt", "--json")
    found = json.loads(cli(*arguments).stdout)
    assert found["labels"] == ["dark", "purple", "bright", "grey ish", "green", "pink", "orange"]
    support = {each["label"]: each["support"] for each in found["per_class"]}
    assert (support["grey ish"], support["purple"], found["images"]) == (10, 0, 30)
    adapted = json.loads(cli(*arguments, "--adapter-path", trained[1]).stdout)
    assert len(adapted["labels"]) == 7 and adapted["nll"] != found["nll"]
    with_template = cli(*arguments[:5], "--template", "a {} thing", "--adapter-path", trained[1])
    assert with_template.returncode == 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("dark\nbright", "--labels lacks 'grey_ish', which the data has: add a line with it"),
        (
            "dark\nbright\ngrey_ish\ngrey ish",
            "the classes 'grey_ish' and 'grey ish' are both 'grey ish' in a prompt",
        ),
        ("", "labels.txt is empty: one entry per line is expected"),
    ],
)
def test_labels_that_do_not_fit(cli, pair, shades, tmp_path, lines, message):
    (tmp_path / "labels.txt").write_text(lines)
    done = cli(
        "evaluate", "--data", shades, "-m", pair, "--labels", tmp_path / "labels.txt", "--split", "all"
    )
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "x"], "--labels is for labelled images, and {data} holds captions: leave it out"),
        (
            ["--predictions", "x.csv"],
            "--predictions is for labelled images, and {data} holds captions: leave it out",
        ),
        (
            ["--template", "a {{}}"],
            "--template is for labelled images, and {data} holds captions: leave it out",
        ),
        (["--split", "test"], "the data has no images in the split test, only in train 9"),
        (
            ["--adapter-path", "{probe}"],
            "holds a head for labels, and {data} holds captions: leave out --adapter-path",
        ),
    ],
)
def test_mistakes_with_captions(cli, pair, captions, probe, arguments, message):
    given = [argument.format(probe=probe) for argument in arguments]
    done = cli("evaluate", "--data", captions, "-m", pair, *given)
    assert done.returncode == 2 and message.format(data=captions) in done.stderr and not done.stdout


def test_a_head_has_its_own_labels(cli, pair, shades, probe, tmp_path):
    done = cli("evaluate", "--data", shades, "-m", pair, "--adapter-path", probe, "--labels", tmp_path / "x")
    assert done.returncode == 2
    assert "--labels is for zero-shot labels: leave it out, or --adapter-path" in done.stderr


def test_a_trained_pair_needs_labels(cli, pair, trained, captions):
    done = cli("classify", captions.parent / "red0.png", "-m", pair, "--adapter-path", trained[1])
    assert done.returncode == 2 and "no labels: give at least two" in done.stderr


def test_a_dry_run_and_going_on(cli, pair, captions, tmp_path):
    arguments = ["finetune", "--task", "contrastive", "-d", captions, "-m", pair, "--batch-size", "4"]
    arguments += ["--adapter-path", tmp_path / "a", "--epochs", "1", "--fine-tune-type", "full"]
    found = json.loads(cli(*arguments, "--dry-run", "--json").stdout)
    assert found["trainable"] == found["parameters"] and found["steps"] == 2 and not list(tmp_path.iterdir())
    assert cli(*arguments, "--json").returncode == 0
    again = cli(*arguments, "--resume", "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["recall@10"] == 1


def test_a_vision_encoder_is_refused_by_name(cli, captions, tiny_vision, tmp_path):
    done = cli(
        "finetune",
        "--task",
        "contrastive",
        "-d",
        captions,
        "-m",
        tiny_vision,
        "--adapter-path",
        tmp_path / "a",
    )
    assert done.returncode == 2
    assert (
        f"trains an image-text pair, and {tiny_vision} is an image encoder alone: use --model lit"
        in done.stderr
    )


def test_captions_in_text_files(cli, pair, captions, tmp_path):
    for image in captions.parent.glob("*.png"):
        shutil.copy(image, tmp_path / image.name)
        (tmp_path / image.name).with_suffix(".txt").write_text(f"{image.stem}\nanother {image.stem}\n")
    found = json.loads(cli("evaluate", "--data", tmp_path, "-m", pair, "--split", "all", "--json").stdout)
    assert (found["images"], found["captions"]) == (9, 18)
