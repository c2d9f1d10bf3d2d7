"""The verb bench."""

import json
import signal

import pytest
from helpers.terminal import Terminal, run_verb, start
from PIL import Image

FAST = ("--seconds", "60", "--batch-sizes", "1,2")


@pytest.fixture(autouse=True)
def few_runs(monkeypatch):
    monkeypatch.setattr("mlx_aimv2.benchmarking.forward.MOST_RUNS", 2)
    monkeypatch.setattr("mlx_aimv2.benchmarking.decoding.MOST", 4)


def test_it_prints_two_tables_and_a_line(cli, pair, photos):
    done = cli("bench", "--model", pair, "--images", photos, *FAST)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split("\t") == ["dtype", "bits", "batch", "images/s", "ms/batch", "memory", "note"]
    assert [line.split("\t")[:3] for line in lines[1:3]] == [["float32", "–", "1"], ["float32", "–", "2"]]
    assert sum("best" in line.split("\t")[-1] for line in lines[1:3]) == 1
    assert lines[4].split("\t") == ["decoding", "images/s", "threads", "with computing"]
    assert [line.split("\t")[0] for line in lines[5:7]] == ["fast", "exact"]
    assert "images/s at batch" in lines[8] and len(lines) == 9
    assert "random: speed does not depend on their values" in done.stderr
    assert "memory: the most that MLX held at once, weights included" in done.stderr
    assert "is the limit" in done.stderr and "(decoded: the images of --images)" in done.stderr
    assert "measured 4 of 4 in" in done.stderr


def test_json_has_everything(cli, pair, photos):
    done = cli("bench", "--model", pair, "--images", photos, *FAST, "--bits", "none,4", "--json")
    report = json.loads(done.stdout)
    assert [(entry["bits"], entry["batch_size"]) for entry in report["measurements"]] == [
        (None, 1), (None, 2), (4, 1), (4, 2),
    ]  # fmt: skip
    assert all(entry["images_per_second"] > 0 for entry in report["measurements"] + report["decoding"])
    assert report["machine"]["device"] == "cpu" and report["line"]


def test_a_chart_is_written_and_not_replaced(cli, pair, photos, tmp_path):
    plot = tmp_path / "bench.png"
    command = ("bench", "--model", pair, "--images", photos, *FAST, "--plot", plot)
    assert cli(*command).returncode == 0
    with Image.open(plot) as image:
        assert image.format == "PNG"
    done = cli(*command)
    assert done.returncode == 2 and "exists already" in done.stderr and "--force" in done.stderr
    assert done.stdout == ""
    assert cli(*command, "--force").returncode == 0


def test_a_chart_that_cannot_be_written_loses_no_results(cli, pair, photos, tmp_path, monkeypatch):
    def fail(_):
        raise OSError("no space")

    monkeypatch.setattr("mlx_aimv2.benchmarking.chart.draw_report", fail)
    command = ("bench", "--model", pair, "--images", photos, *FAST, "--plot", tmp_path / "bench.png")
    done = cli(*command)
    assert done.returncode == 1 and "no space" in done.stderr
    assert "images/s at batch" in done.stdout
    done = cli(*command, "--json")
    assert done.returncode == 1 and json.loads(done.stdout)["line"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--plot", "bench.jpg"), "--plot writes PNG: name a .png file, not bench.jpg"),
        (("--plot", "no/such/bench.png"), "there is no folder no/such"),
        (("--force",), "--force needs --plot"),
        (("--dtypes", "float8"), "--dtypes 'float8' is not one of float32, float16, bfloat16"),
        (("--model", "lit-large"), "neither a folder nor a known model"),
        (("--images", "no-such-folder/*.jpg"), "no images match no-such-folder/*.jpg"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_measured(cli, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    done = cli("bench", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_broken_images_and_failed_settings_end_with_1(cli, pair, photos, tmp_path, monkeypatch):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    done = cli("bench", "--model", pair, "--images", photos, "--images", tmp_path / "broken.jpg", *FAST)
    assert done.returncode == 1 and done.stderr.count("skipped") == 1

    def fail(*_):
        raise RuntimeError("[malloc] Unable to allocate 9 bytes")

    monkeypatch.setattr("mlx_aimv2.benchmarking.forward.pool", fail)
    done = cli("bench", "--model", pair, "--images", photos, *FAST)
    assert done.returncode == 1
    assert done.stdout.splitlines()[1] == "float32\t–\t1\t\t\t\tout of memory"
    assert "measured 2 of 4, 1 left out, 1 failed in" in done.stderr


def test_the_tables_fit_a_terminal_of_80_columns(monkeypatch, pair, photos):
    monkeypatch.setenv("MLX_AIMV2_DEVICE", "cpu")
    seen = run_verb(monkeypatch, ("bench", "--model", pair, "--images", photos, *FAST))
    assert seen.status == 0
    header = next(line for line in seen.terminal.lines if line.startswith("dtype"))
    assert header.split() == ["dtype", "bits", "batch", "images/s", "ms/batch", "memory", "note"]
    assert seen.terminal.shows_cursor


def test_an_interruption_prints_what_there_is(pair, photos, tmp_path):
    terminal = Terminal()
    with (tmp_path / "out").open("w") as out:
        arguments = (
            "bench",
            "--model",
            pair,
            "--images",
            photos,
            "--seconds",
            "600",
            "--batch-sizes",
            "1,4096",
        )
        with start(arguments, terminal, stdout=out) as process:
            terminal.wait_for("1/4")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
    terminal.close()
    assert "measured 1 of 4 in" in terminal.text and "interrupted" in terminal.text
    assert "images/s at batch 1" in (tmp_path / "out").read_text()
