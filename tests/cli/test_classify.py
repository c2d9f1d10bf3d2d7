import json
import shutil

import pytest

from mlx_aimv2.demo.untrained import write_checkpoint

LABELS = "a dog,a cat,a rocket"


def test_json_is_a_list_of_pictures_with_labels_best_first(cli, pair, photos):
    done = cli("classify", photos, "--labels", LABELS, "--model", pair, "--json")
    assert done.returncode == 0
    entries = json.loads(done.stdout)
    assert [entry["path"] for entry in entries] == [str(photos / f"{k}.png") for k in range(3)]
    for entry in entries:
        scores = [prediction["score"] for prediction in entry["predictions"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert {prediction["label"] for prediction in entry["predictions"]} == set(LABELS.split(","))


def test_json_is_whole_with_broken_pictures(cli, pair, photos, tmp_path):
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
    assert -1 <= prediction["score"] <= 1
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
        (["--labels", "a dog"], 2, "a softmax over one label is 1 whatever the picture shows"),
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
    pictures = [shades / name / "0.png" for name in ("dark", "bright", "grey_ish")]
    done = cli("classify", *pictures, "--model", pair, "--adapter-path", probe, "--json")
    assert done.returncode == 0, done.stderr
    entries = json.loads(done.stdout)
    assert [entry["path"] for entry in entries] == list(map(str, pictures))
    for entry, label in zip(entries, ("dark", "bright", "grey_ish"), strict=True):
        assert entry["predictions"][0]["label"] == label
        assert len(entry["predictions"]) == 3
        assert sum(prediction["score"] for prediction in entry["predictions"]) == pytest.approx(1)


def test_a_head_for_several_labels_gives_each_a_probability_of_its_own(cli, pair, tagger, shades):
    picture = shades / "dark" / "0.png"
    done = cli("classify", picture, "--model", pair, "--adapter-path", tagger, "--json", "--batch-size", "1")
    first, *others = json.loads(done.stdout)[0]["predictions"]
    assert first == {"label": "dark", "score": pytest.approx(1 / (1 + 2.718281828**-10), abs=1e-4)}
    assert all(other["score"] < 0.01 for other in others)


def test_a_trained_head_skips_broken_pictures_and_shows_a_few_labels(cli, pair, probe, shades, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no")
    pictures = (tmp_path / "broken.png", shades / "dark" / "0.png")
    done = cli("classify", *pictures, "--model", pair, "--adapter-path", probe, "--top-k", "1")
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
    assert "--any-base is for --adapter-path: leave it out" in done.stderr
