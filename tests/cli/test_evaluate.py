import csv
import json
import shutil

import pytest
from PIL import Image


def test_help_explains_the_verb(cli):
    done = cli("evaluate", "--help")
    assert done.returncode == 0
    assert "mlx-aimv2 evaluate" in done.stdout
    assert "labels or captions" in done.stdout


def test_without_a_mode_one_line_says_what_is_needed(cli):
    done = cli("evaluate")
    assert done.returncode == 2
    assert done.stderr == "mlx-aimv2: error: nothing to evaluate: give --data PATH\n"


def test_a_trained_head_is_measured_on_the_validation_split(cli, pair, probe, shades):
    done = cli("evaluate", "--data", shades, "--model", pair, "--adapter-path", probe, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["images"], found["top1"], found["top5"], found["macro_f1"]) == (6, 1, 1, 1)
    assert found["labels"] == ["bright", "dark", "grey_ish"]
    assert found["confusion"] == [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
    assert 0 <= found["ece"] < 0.01 and found["nll"] < 0.01
    assert (found["mistakes"], found["skipped"]) == ([], [])


@pytest.mark.parametrize(("split", "count"), [("train", 24), ("val", 6), ("all", 30)])
def test_splits(cli, pair, probe, shades, split, count):
    done = cli(
        "evaluate", "--data", shades, "--model", pair, "--adapter-path", probe, "--split", split, "--json"
    )
    assert json.loads(done.stdout)["images"] == count


def test_the_split_is_that_of_the_training(cli, pair, probe, shades, tmp_path):
    """Whatever came to the data since then: nothing that was trained on is measured."""
    data = shutil.copytree(shades, tmp_path / "data")
    for k in range(4):
        Image.new("RGB", (50, 50 + k)).save(data / "dark" / f"new-{k}.png")
    given = ("evaluate", "--data", data, "--model", pair, "--adapter-path", probe, "--json")
    done = cli(*given)
    assert json.loads(done.stdout)["images"] == 6
    assert "4 images that the training did not know: left out; --split all measures all" in done.stderr
    assert json.loads(cli(*given, "--split", "all").stdout)["images"] == 34
    done = cli(*given, "--val-fraction", "0.1")
    assert done.returncode == 2 and "would mix what was trained on in" in done.stderr


def test_other_data_is_measured_as_a_whole(cli, pair, probe, shades, tmp_path):
    (tmp_path / "data" / "dark").mkdir(parents=True)  # one class is enough
    for k in range(3):
        Image.new("RGB", (50, 50 + k)).save(tmp_path / "data" / "dark" / f"{k}.png")
    done = cli("evaluate", "--data", tmp_path / "data", "--model", pair, "--adapter-path", probe, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 3
    assert f"no image of {tmp_path / 'data'} was known to the training in {probe}" in done.stderr
    assert json.loads(cli("evaluate", "--data", shades, "--model", pair, "--json").stdout)["images"] == 30


def test_tables_name_classes_and_mistakes(cli, pair, probe, shades, tmp_path):
    data = shutil.copytree(shades, tmp_path / "data")
    (data / "bright" / "0.png").replace(data / "dark" / "wrong.png")
    arguments = ("--data", data, "--model", pair, "--adapter-path", probe, "--split", "all")
    done = cli("evaluate", *arguments)
    assert done.returncode == 0
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[:2] == [["what", "value"], ["images", "30"]]
    assert ["top-1", "96.67%"] in rows
    assert ["bright", "90.00%", "100.00%", "94.74%", "9"] in rows
    assert rows[-2] == ["surest mistakes", "truth", "prediction", "confidence"]
    assert rows[-1][:3] == [str(data / "dark" / "wrong.png"), "dark", "bright"]


def test_a_report_is_written(cli, pair, probe, shades, tmp_path):
    arguments = ("--data", shades, "--model", pair, "--adapter-path", probe, "--output", tmp_path / "report")
    done = cli("evaluate", *arguments, "--json")
    assert done.returncode == 0
    names = ["calibration.png", "confusion.png", "evaluation.json"]
    assert f"wrote {', '.join(names)} to {tmp_path / 'report'}" in done.stderr
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == names
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text()) == json.loads(done.stdout)


def test_without_an_adapter_the_class_names_are_labels(cli, pair, shades):
    arguments = ("evaluate", "--data", shades, "--model", pair, "--split", "all", "--json")
    found = json.loads(cli(*arguments).stdout)
    assert (found["images"], found["labels"]) == (30, ["bright", "dark", "grey_ish"])
    other = json.loads(cli(*arguments, "--template", "this is {}!").stdout)
    assert found["nll"] != pytest.approx(other["nll"])


def test_several_labels(cli, pair, tagger, shades):
    arguments = ("--data", shades, "--model", pair, "--adapter-path", tagger, "--json")
    found = json.loads(cli("evaluate", *arguments).stdout)
    assert (found["multi_label"], found["exact_match"], found["map"], found["micro_f1"]) == (True, 1, 1, 1)
    assert "confusion" not in found and "top1" not in found


def test_a_broken_image_of_the_data_is_named(cli, pair, probe, shades, tmp_path):
    data = shutil.copytree(shades, tmp_path / "data")
    (data / "dark" / "broken.png").write_bytes(b"no")
    arguments = ("--data", data, "--model", pair, "--adapter-path", probe, "--split", "all", "--json")
    done = cli("evaluate", *arguments)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["images"], found["top1"]) == (30, 1)
    assert [each["path"] for each in found["skipped"]] == [str(data / "dark" / "broken.png")]
    assert f"skipped {data / 'dark' / 'broken.png'}: " in done.stderr


def test_a_class_the_head_does_not_know(cli, pair, probe, shades, tmp_path):
    data = shutil.copytree(shades, tmp_path / "data")
    (data / "red").mkdir()
    Image.new("RGB", (60, 60), "red").save(data / "red" / "0.png")
    done = cli("evaluate", "--data", data, "--model", pair, "--adapter-path", probe)
    assert done.returncode == 2
    assert "the classifier does not know 'red': it was trained on 'bright', 'dark', 'grey_ish'" in done.stderr


def test_the_head_of_a_fused_checkpoint_is_pointed_out_unless_labels_are_to_be_words(
    cli, pair, shades, tmp_path
):
    fused = shutil.copytree(pair, tmp_path / "fused")
    (fused / "head.safetensors").touch()
    weights = (fused / "model.safetensors").rename(tmp_path / "weights")
    done = cli("evaluate", "--data", shades, "--model", fused)  # before anything is loaded
    head = f"{fused} has a trained head beside it: add --adapter-path {fused}"
    message = f"mlx-aimv2: error: {head}, or --template or --labels for zero-shot labels of a pair\n"
    assert (done.returncode, done.stderr.splitlines(True)[-1]) == (2, message)
    weights.rename(fused / "model.safetensors")
    (tmp_path / "labels").write_text("bright\ndark\ngrey_ish\n")
    for words in (("--template", "a {}"), ("--labels", tmp_path / "labels")):
        done = cli("evaluate", "--data", shades, "--model", fused, *words, "--json")
        assert done.returncode == 0 and "top1" in json.loads(done.stdout)


def test_classes_with_images_are_shown_before_labels_without(cli, pair, shades, tmp_path):
    others = [f"shade {number}" for number in range(40)]
    (tmp_path / "labels").write_text("\n".join([*others, "bright", "dark", "grey_ish"]))
    done = cli("evaluate", "--data", shades, "--model", pair, "--labels", tmp_path / "labels")
    assert done.returncode == 0
    rows = done.stdout.split("class\t")[1].splitlines()[1:]
    assert {row.split("\t")[0] for row in rows[:3]} == {"bright", "dark", "grey_ish"}


def test_a_trained_head_takes_no_templates(cli, pair, probe, shades):
    done = cli("evaluate", "--data", shades, "--model", pair, "--adapter-path", probe, "--template", "a {}")
    message = "--template is for zero-shot labels: leave it out, or --adapter-path"
    assert done.returncode == 2 and message in done.stderr


def test_an_adapter_without_a_head_has_nothing_to_measure(cli, pair, with_adapter, shades, tmp_path):
    with_adapter(pair, tmp_path / "a")
    for arguments in (("evaluate", "--data", shades), ("classify", shades / "dark")):
        done = cli(*arguments, "--model", pair, "--adapter-path", tmp_path / "a")
        assert done.returncode == 2
        assert f"{tmp_path / 'a'} holds no head" in done.stderr
    words = ("--template", "a {}", "--json")
    done = cli("evaluate", "--data", shades, "--model", pair, "--adapter-path", tmp_path / "a", *words)
    assert done.returncode == 0 and json.loads(done.stdout)["images"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "best"], "split 'best' is not one of val, test, train, all"),
        (
            ["--split", "test"],
            "the data has no images in the split test, only in train 30: choose with --split",
        ),
        (["--val-fraction", "0"], "the data has no images in the split val, only in train 30"),
        (["--any-base"], "--any-base needs --adapter-path"),
        (["--template", "x"], "the template 'x' has no {} for the label to go into"),
        (["--batch-size", "0"], "--batch-size"),
    ],
)
def test_mistakes_with_data(cli, pair, photos, shades, arguments, message):
    photo = str(photos / "0.png")
    done = cli(
        "evaluate", "--data", shades, "--model", pair, *(x.replace("{photo}", photo) for x in arguments)
    )
    assert done.returncode == 2
    assert message.replace("{photo}", photo).replace("{data}", str(shades)) in done.stderr
    assert "Traceback" not in done.stderr and not done.stdout


# What images of classes are called, what was predicted for each, and the base of an adapter.


def test_ids_of_folders_get_names(cli, pair, shades, tmp_path):
    data, ids = tmp_path / "data", {"n01855672": "bright", "n01855673": "dark", "n01855674": "grey_ish"}
    for name, shade in ids.items():
        shutil.copytree(shades / shade, data / name)
    request = ("--data", data, "--model", pair, "--split", "all", "--json")
    words = json.loads(cli("evaluate", "--data", shades, *request[2:]).stdout)
    names = ",".join(f"{name}={shade}".replace("_", " ") for name, shade in ids.items())
    done = cli("evaluate", *request, "--labels", names)
    found = json.loads(done.stdout)
    assert done.stderr == "" and found["nll"] == pytest.approx(words["nll"], abs=1e-4)
    assert (found["labels"], found["label_texts"]) == (list(ids), ["bright", "dark", "grey ish"])
    (tmp_path / "names.csv").write_text("id,name\nn01855672,bright\nn01855673,dark\n")
    done = cli("evaluate", *request, "--labels", tmp_path / "names.csv")
    assert json.loads(done.stdout)["label_texts"] == ["bright", "dark", "n01855674"]
    assert "1 of 3 labels looks like an id, which say nothing to a model: 'n01855674'" in done.stderr
    done = cli("evaluate", *request, "--labels", "x=bright")
    assert done.returncode == 2 and "--labels names 'x', and the data has 'n01855672'" in done.stderr


def test_predictions_of_every_image(cli, pair, probe, shades, tmp_path):
    data = shutil.copytree(shades, tmp_path / "data")
    (data / "bright" / "0.png").replace(data / "dark" / "wrong.png")
    request = ("--data", data, "--adapter-path", probe, "--split", "all")
    done = cli("evaluate", *request, "--predictions", "-", "--json")
    found = json.loads(done.stdout)
    assert f"the base is {pair}, as {probe} says; --model names another" in done.stderr
    predictions = {each["path"]: each for each in found["predictions"]}
    assert len(predictions) == 30
    wrong = predictions[str(data / "dark" / "wrong.png")]
    assert (wrong["truth"], wrong["predicted"]) == (["dark"], ["bright"])
    assert wrong["predictions"][0]["label"] == "bright" and len(wrong["predictions"]) == 3
    assert (
        wrong["score"]
        == wrong["predictions"][0]["score"]
        == pytest.approx(found["mistakes"][0]["confidence"])
    )
    done = cli("evaluate", *request, "--predictions", tmp_path / "all.csv")
    assert done.returncode == 0 and f"wrote 30 predictions to {tmp_path / 'all.csv'}" in done.stderr
    with (tmp_path / "all.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert rows.keys() == predictions.keys()
    assert {name: row["predicted"] for name, row in rows.items()} == {
        name: each["predicted"][0] for name, each in predictions.items()
    }
    done = cli("evaluate", *request, "--predictions", tmp_path / "all.csv")
    assert done.returncode == 2 and "all.csv exists already" in done.stderr
    assert cli("evaluate", *request, "--predictions", tmp_path / "all.csv", "--force").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--predictions", "-"],
            "--predictions - puts them into the evaluation's JSON: ask for it with --json or",
        ),
        (["--force"], "--force is for --output FOLDER and --predictions FILE: leave"),
        (
            ["--predictions", "-", "--json", "--force"],
            "--force is for --output FOLDER and --predictions FILE: leave",
        ),
        (
            ["--predictions", "a.txt"],
            "a.txt: no format ends in .txt; use .csv, .tsv, .json, .jsonl, .parquet",
        ),
    ],
)
def test_predictions_that_cannot_be_written(cli, shades, arguments, message):
    done = cli("evaluate", "--data", shades, "--model", "no such model", *arguments)
    assert done.returncode == 2 and message in done.stderr


def test_every_verb_takes_the_base_of_the_adapter(cli, pair, with_adapter, photos, tmp_path):
    with_adapter(pair, tmp_path / "a")
    told = f"mlx-aimv2: the base is {pair}, as {tmp_path / 'a'} says; --model names another\n"
    given, named = ((), ("--model", pair))
    vectors = [
        cli("embed", photos / "0.png", "--adapter-path", tmp_path / "a", *model) for model in (given, named)
    ]
    assert (
        vectors[0].stdout == vectors[1].stdout != "" and vectors[0].stderr == told and not vectors[1].stderr
    )
    done = cli("fuse", "--adapter-path", tmp_path / "a", "--save-path", tmp_path / "fused")
    assert done.returncode == 0 and done.stderr.startswith(told)
    done = cli("export", tmp_path / "out", "--adapter-path", tmp_path / "a")
    assert done.returncode == 0 and done.stderr.startswith(told)
    assert (tmp_path / "out" / "config.json").is_file()
    done = cli("export", "lit", "--adapter-path", tmp_path / "a")
    assert done.returncode == 2 and "name the folder to write too: mlx-aimv2 export lit FOLDER" in done.stderr
    done = cli("export", tmp_path / "out")
    assert (
        done.returncode == 2
        and f"name the folder to write too: mlx-aimv2 export {tmp_path / 'out'} FOLDER" in done.stderr
    )
