import csv
import json
import os
import shutil

import pytest
from drawn_world.untrained import write_checkpoint

from mlx_aimv2 import Embedder, ZeroShotClassifier, load
from mlx_aimv2.cli.classify import ClassifyOptions, _File
from mlx_aimv2.inference.zero_shot import Classified

LABELS = "a dog,a cat,a rocket"


def test_json_is_a_list_of_images_with_labels_best_first(cli, pair, photos):
    done = cli("classify", photos, "--labels", LABELS, "--model", pair, "--json")
    assert done.returncode == 0
    entries = json.loads(done.stdout)
    assert [entry["path"] for entry in entries] == [str(photos / f"{k}.png") for k in range(3)]
    for entry in entries:
        scores = [prediction["score"] for prediction in entry["predictions"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert {prediction["label"] for prediction in entry["predictions"]} == set(LABELS.split(","))


def test_json_is_whole_with_broken_images(cli, pair, photos, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no")
    done = cli(
        "classify", tmp_path / "broken.png", photos / "0.png", "--labels", LABELS, "--model", pair, "--json"
    )
    assert done.returncode == 1
    assert [entry["path"] for entry in json.loads(done.stdout)] == [str(photos / "0.png")]
    only = cli("classify", tmp_path / "broken.png", "--labels", LABELS, "--model", pair, "--json")
    assert json.loads(only.stdout) == []


def test_a_pipe_gets_tab_separated_lines(cli, pair, photos):
    done = cli("classify", photos / "0.png", "--labels", LABELS, "--model", pair, "--top-k", "2")
    header, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["path", "label", "score"] and len(rows) == 2
    assert all(path == str(photos / "0.png") and label in LABELS for path, label, _ in rows)


def scores_of(cli, pair, photos, options):
    """Every (path, label) with its score."""
    done = cli("classify", photos, *options, "--model", pair, "--json")
    return {(e["path"], p["label"]): p["score"] for e in json.loads(done.stdout) for p in e["predictions"]}


def test_labels_and_templates_from_files_mean_the_same_as_on_the_line(cli, pair, photos, tmp_path):
    (tmp_path / "labels").write_bytes(b"\xef\xbb\xbfa dog\r\n\r\na cat\r\na rocket")  # with a mark
    (tmp_path / "templates").write_text("a photo of {}.\nthis is {}!\n")
    files = ["--labels-file", tmp_path / "labels", "--templates", tmp_path / "templates"]
    line = ["--labels", LABELS, "--template", "a photo of {}.", "--template", "this is {}!"]
    default = ["--labels", LABELS]
    first, second, other = (scores_of(cli, pair, photos, given) for given in (files, line, default))
    assert first == pytest.approx(second, abs=1e-4)
    assert first != pytest.approx(other, abs=1e-4)


def test_cosines_and_a_background_label(cli, pair, photos):
    one = cli("classify", photos / "0.png", "-l", "a dog", "--score", "cosine", "--model", pair, "--json")
    (prediction,) = json.loads(one.stdout)[0]["predictions"]
    model, processor = load(pair)
    label = ZeroShotClassifier(model, processor, ["a dog"], score="cosine").label_embeddings[0]
    expected = float(label @ Embedder(model, processor).images([photos / "0.png"])[0])
    assert prediction["score"] == pytest.approx(expected, abs=1e-4)
    two = cli(
        "classify", photos / "0.png", "-l", "a dog", "--none", "something else", "--model", pair, "--json"
    )
    assert {p["label"] for p in json.loads(two.stdout)[0]["predictions"]} == {"a dog", "something else"}


def test_the_head_of_a_fused_checkpoint_is_pointed_out(cli, pair, photos, tmp_path):
    fused = shutil.copytree(pair, tmp_path / "fused")
    (fused / "head.safetensors").touch()
    done = cli("classify", photos / "0.png", "--model", fused)
    message = f"mlx-aimv2: error: {fused} has a trained head beside it: add --adapter-path {fused}\n"
    assert (done.returncode, done.stderr) == (2, message)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--labels", "a dog"], 2, "a softmax over one label is 1 whatever the image shows"),
        ([], 2, "no labels"),
        (["--labels", "a,b,a"], 2, "the label 'a' is given twice"),
        (
            ["--labels", "a,b", "--template", "no place"],
            2,
            "the template 'no place' has no {} for the label to go into",
        ),
        (["--labels", "a,b", "--score", "best"], 2, "score 'best' is not one of softmax, cosine"),
        (
            ["--labels-file", "/no/file"],
            2,
            "/no/file cannot be read: No such file or directory; a file with one entry per line is expected",
        ),
        (["--labels", "a,b", "--top-k", "0"], 2, "--top-k"),
        (["--labels", "a,b", "--batch-size", "0"], 2, "--batch-size"),
    ],
)
def test_mistakes_get_one_clear_line(cli, pair, photos, arguments, status, message):
    done = cli("classify", photos / "0.png", *arguments, "--model", pair)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_a_trained_head_brings_its_labels(cli, pair, probe, shades):
    images = [shades / name / "0.png" for name in ("dark", "bright", "grey_ish")]
    done = cli("classify", *images, "--model", pair, "--adapter-path", probe, "--json")
    assert done.returncode == 0, done.stderr
    entries = json.loads(done.stdout)
    assert [entry["path"] for entry in entries] == list(map(str, images))
    for entry, label in zip(entries, ("dark", "bright", "grey_ish"), strict=True):
        assert entry["predictions"][0]["label"] == label
        assert len(entry["predictions"]) == 3
        assert sum(prediction["score"] for prediction in entry["predictions"]) == pytest.approx(1)


def test_a_head_for_several_labels_gives_each_a_probability_of_its_own(cli, pair, tagger, shades):
    image = shades / "dark" / "0.png"
    done = cli("classify", image, "--model", pair, "--adapter-path", tagger, "--json", "--batch-size", "1")
    first, *others = json.loads(done.stdout)[0]["predictions"]
    assert first == {"label": "dark", "score": pytest.approx(1 / (1 + 2.718281828**-10), abs=1e-4)}
    assert all(other["score"] < 0.01 for other in others)


def test_a_trained_head_skips_broken_images_and_shows_a_few_labels(cli, pair, probe, shades, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no")
    images = (tmp_path / "broken.png", shades / "dark" / "0.png")
    done = cli("classify", *images, "--model", pair, "--adapter-path", probe, "--top-k", "1")
    assert done.returncode == 1
    assert done.stdout.splitlines()[1].split("\t")[:2] == [str(shades / "dark" / "0.png"), "dark"]
    assert len(done.stdout.splitlines()) == 2 and "skipped" in done.stderr


def test_a_head_of_another_base_needs_leave(cli, probe, shades, tmp_path):
    other = write_checkpoint(tmp_path / "other", seed=5)
    arguments = ("classify", shades / "dark" / "0.png", "--model", other, "--adapter-path", probe, "--json")
    done = cli(*arguments)
    assert done.returncode == 2 and "was trained on" in done.stderr and not done.stdout
    assert cli(*arguments, "--any-base").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--labels", "a,b"],
            "--labels is for zero-shot labels: leave it out, or --adapter-path, which has its own",
        ),
        (["--template", "a {}"], "--template is for zero-shot labels"),
        (["--none", "nothing"], "--none is for zero-shot labels"),
        (["--score", "cosine"], "--score cosine is for zero-shot labels: a trained head gives probabilities"),
    ],
)
def test_what_a_trained_head_has_no_use_for(cli, pair, probe, photos, arguments, message):
    done = cli("classify", photos / "0.png", "--model", pair, "--adapter-path", probe, *arguments)
    assert done.returncode == 2
    assert message in done.stderr and not done.stdout


def test_leave_for_any_base_needs_an_adapter(cli, pair, photos):
    done = cli("classify", photos / "0.png", "--model", pair, "--labels", LABELS, "--any-base")
    assert done.returncode == 2
    assert "--any-base needs --adapter-path" in done.stderr


# Files of labels.


def read_rows(path):
    """The rows of a CSV file as dictionaries."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_file_holds_what_json_does(cli, pair, photos, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no")
    images = (photos / "0.png", tmp_path / "broken.png", photos / "1.png")
    request = ("--labels", LABELS, "--model", pair, "--top-k", "2")
    entries = json.loads(cli("classify", *images, *request, "--json").stdout)
    assert [len(entry["predictions"]) for entry in entries] == [2, 2]
    for name in ("labels.csv", "labels.jsonl"):
        done = cli("classify", *images, *request, "-o", tmp_path / name)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"wrote the labels of 2 images to {tmp_path / name}" in done.stderr
        assert f"skipped {tmp_path / 'broken.png'}: " in done.stderr
    assert [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()] == entries
    rows = [(row["path"], row["label"], float(row["score"])) for row in read_rows(tmp_path / "labels.csv")]
    expected = [(e["path"], p["label"], p["score"]) for e in entries for p in e["predictions"]]
    assert rows == expected


def test_a_file_that_is_there_is_kept_unless_it_is_to_be_replaced(cli, pair, photos, tmp_path):
    (tmp_path / "a.csv").write_text("mine")
    request = ("classify", photos / "0.png", "--labels", LABELS, "--model", pair, "-o", tmp_path / "a.csv")
    done = cli(*request)
    assert done.returncode == 2 and f"{tmp_path / 'a.csv'} exists already" in done.stderr
    assert (tmp_path / "a.csv").read_text() == "mine"
    assert cli(*request, "--force").returncode == 0
    assert len(read_rows(tmp_path / "a.csv")) == 3


def test_nothing_is_written_where_nothing_could_be_read(cli, pair, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no")
    request = ("--labels", LABELS, "--model", pair, "-o", tmp_path / "a.parquet")
    done = cli("classify", tmp_path / "broken.png", *request)
    assert done.returncode == 1 and f"nothing to write to {tmp_path / 'a.parquet'}" in done.stderr
    assert not (tmp_path / "a.parquet").exists()


def test_a_trained_head_writes_files_too(cli, pair, probe, shades, tmp_path):
    arguments = (
        "classify",
        shades / "dark",
        "--adapter-path",
        probe,
        "--top-k",
        "1",
        "-o",
        tmp_path / "a.tsv",
    )
    done = cli(*arguments)
    assert done.returncode == 0, done.stderr
    header, *rows = (tmp_path / "a.tsv").read_text().splitlines()
    assert header == "path\tlabel\tscore" and len(rows) == 10 and all("\tdark\t" in row for row in rows)
    assert f"the base is {pair}, as {probe} says; --model names another" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "a.xlsx"], "a.xlsx: no format ends in .xlsx; use .csv, .tsv, .json, .jsonl, .parquet"),
        (["-o", "a.csv", "--json"], "--json prints to stdout and -o writes a file: give one of them"),
        (["--force"], "--force is for -o: leave it out"),
        (["-o", "/no/where/a.csv"], "/no/where/a.csv cannot be written: No such file or directory"),
    ],
)
def test_files_that_cannot_be_written_are_refused_early(cli, photos, arguments, message):
    done = cli("classify", photos / "0.png", "--labels", LABELS, "--model", "no such model", *arguments)
    assert done.returncode in (1, 2) and message in done.stderr and not done.stdout


# What labels are called.


def test_names_stand_for_ids_and_results_have_the_ids(cli, pair, photos, tmp_path):
    (tmp_path / "names.json").write_text(json.dumps({"n01855672": "a dog", "n2": "a cat", "n3": "a rocket"}))
    named = ("--labels", tmp_path / "names.json")
    inline = ("--labels", "n01855672=a dog,n2=a cat", "-l", "n3=a rocket")
    plain = cli("classify", photos / "0.png", "--labels", LABELS, "--model", pair, "--json")
    expected = {entry["label"]: entry["score"] for entry in json.loads(plain.stdout)[0]["predictions"]}
    for labels in (named, inline):
        done = cli("classify", photos / "0.png", *labels, "--model", pair, "--json")
        assert done.returncode == 0 and done.stderr == ""
        predictions = json.loads(done.stdout)[0]["predictions"]
        assert {entry["label"] for entry in predictions} == {"n01855672", "n2", "n3"}
        assert {entry["text"]: entry["score"] for entry in predictions} == pytest.approx(expected, abs=1e-5)


def test_folder_names_are_read_as_words_and_ids_are_pointed_out(cli, pair, photos):
    done = cli("classify", photos / "0.png", "-l", "BlackRing,n01855672,sea_lion", "--model", pair, "--json")
    texts = {entry["label"]: entry.get("text") for entry in json.loads(done.stdout)[0]["predictions"]}
    assert texts == {"BlackRing": "Black Ring", "n01855672": None, "sea_lion": "sea lion"}
    lines = done.stderr.splitlines()
    assert lines[0] == "mlx-aimv2: names are read as words: 'BlackRing' as 'Black Ring'"
    assert lines[1].startswith("mlx-aimv2: 1 of 3 labels looks like an id, which say")
    assert len(lines) == 2


def test_a_label_that_is_too_long_is_named_once(cli, pair, photos):
    long = "word " * 90
    done = cli("classify", photos / "0.png", "-l", f"a dog,{long}", "--model", pair, "--json")
    assert done.returncode == 0
    message = f"the label '{('word ' * 12)[:59]}…' is longer than the model takes: the end does not count"
    assert done.stderr == f"mlx-aimv2: {message}\n"


def test_files_of_labels_and_templates_may_begin_with_a_mark(cli, pair, photos, tmp_path):
    (tmp_path / "labels").write_text("a dog\na cat\na rocket\n", encoding="utf-8-sig")
    (tmp_path / "templates").write_text("a photo of {}.\n", encoding="utf-16")
    files = ["--labels-file", tmp_path / "labels", "--templates", tmp_path / "templates"]
    line = ["--labels", LABELS, "--template", "a photo of {}."]
    first, second = (scores_of(cli, pair, photos, given) for given in (files, line))
    assert first.keys() == second.keys() and first == pytest.approx(second, abs=1e-4)


def pipe(text):
    """The path of a pipe with a text, as a shell makes it for `<(command)`: it can be read once."""
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    return f"/dev/fd/{reader}"


def test_labels_and_templates_may_come_from_pipes(cli, pair, photos):
    labels, templates = pipe(LABELS.replace(",", "\n")), pipe("a photo of {}.\n")
    line = ["--labels", LABELS, "--template", "a photo of {}."]
    from_pipes = scores_of(cli, pair, photos, ["--labels-file", labels, "--templates", templates])
    assert from_pipes == scores_of(cli, pair, photos, line)


# The base of an adapter.


def test_a_base_that_is_gone_is_named(cli, probe, photos, tmp_path):
    moved = shutil.copytree(probe, tmp_path / "adapter")
    task = json.loads((moved / "task.json").read_text())
    task["base"]["name"] = "/no/such/base"
    (moved / "task.json").write_text(json.dumps(task))
    done = cli("classify", photos / "0.png", "--adapter-path", moved)
    message = f"{moved} was trained on /no/such/base, which is not there: name its place with --model"
    assert (done.returncode, done.stderr) == (2, f"mlx-aimv2: error: {message}\n")


def test_an_interrupted_run_leaves_an_earlier_file(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("longer")
    file = _File(ClassifyOptions(output=tmp_path / "a.csv", force=True, top_k=1), {})
    file.add("a.png", Classified(0, [("dog", 0.75), ("cat", 0.25)]))
    file.close(interrupted=True)
    assert (tmp_path / "a.csv").read_text() == "longer"
    assert (tmp_path / "a.part.csv").read_text() == "path,label,score\na.png,dog,0.75\n"
    assert capsys.readouterr().err == f"mlx-aimv2: wrote the labels of 1 image to {tmp_path / 'a.part.csv'}\n"


def test_an_adapter_without_a_head_takes_labels(cli, pair, with_adapter, photos, tmp_path):
    """As PEFT writes them: the labels are embedded by the adapted pair."""
    with_adapter(pair, tmp_path / "a")
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    arguments = ("classify", photos / "0.png", "--model", pair, "--adapter-path", tmp_path / "a", "--json")
    done = cli(*arguments, "--labels", LABELS)
    assert done.returncode == 0, done.stderr
    model, processor = load(pair, adapter_path=tmp_path / "a")
    expected = ZeroShotClassifier(model, processor, LABELS.split(","))(photos / "0.png")[0]
    entries = json.loads(done.stdout)[0]["predictions"]
    assert {entry["label"]: entry["score"] for entry in entries} == pytest.approx(dict(expected), abs=1e-5)
    plain = cli(*arguments[:4], "--labels", LABELS, "--json")
    assert json.loads(plain.stdout)[0]["predictions"] != entries
    done = cli(*arguments)
    assert done.returncode == 2 and "holds no head: it was not trained to classify" in done.stderr
    assert done.stderr.endswith("; with an image-text pair, give --labels\n")


def test_a_folder_that_is_missing_is_named_with_labels_too(cli, pair, photos, tmp_path):
    request = ("classify", photos / "0.png", "--labels", LABELS, "--model", pair)
    done = cli(*request, "--adapter-path", tmp_path / "none")
    assert done.returncode == 1 and f"{tmp_path / 'none'}: there is no such folder" in done.stderr


def test_a_name_without_images_is_reported_once(cli, pair, photos, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "notes.txt").write_text("hi")
    names = (photos / "0.png", tmp_path / "none", tmp_path / "*.png")
    done = cli("classify", *names, "--labels", LABELS, "--model", pair, "--json")
    assert done.returncode == 1 and len(json.loads(done.stdout)) == 1
    lines = [line for line in done.stderr.splitlines() if "skipped " in line or "no images" in line][:2]
    folder = f"no images in the folder {tmp_path / 'none'}: it holds 1 file: 1 other (.txt)"
    assert lines == [
        f"mlx-aimv2: skipped {tmp_path / 'none'}: {folder}",
        f"mlx-aimv2: skipped {tmp_path / '*.png'}: no images match {tmp_path / '*.png'}",
    ]
    assert "Is a directory" not in done.stderr and done.stderr.count("1 other (.txt)") == 2  # and in the sum
