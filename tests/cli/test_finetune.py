"""`mlx-aimv2 finetune`: options to their fields, what is shown, and what to do next."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
import typing
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mlx_aimv2.cli.app import app
from mlx_aimv2.finetuning.options import FinetuneOptions
from mlx_aimv2.finetuning.run import Finished

FIELDS = dataclasses.fields(FinetuneOptions)
KINDS = typing.get_type_hints(FinetuneOptions)
OTHERS = {  # a value that is not the default, for what is neither a number nor a text nor yes and no
    "fine_tune_type": "dora", "class_weights": "balanced", "pooling": "head", "optimizer": "lion",
    "schedule": "linear", "metric": "loss", "dtype": "float32",
    "task": "contrastive", "vision_tower": "frozen", "text_tower": "frozen", "target_modules": "q,v",
    "exclude": ("raw",), "decode": "native", "resize": "bilinear",
}  # fmt: skip
SMALL = (
    "layer_decay",
    "dropout",
    "ema",
    "label_smoothing",
    "val_fraction",
    "warmup",
    "flip",
    "random_resized_crop",
)
WITH = {
    "sweep": ["--fine-tune-type", "linear"],
    "neighbours": ["--fine-tune-type", "knn"],
    "vision_tower": ["--task", "contrastive"],
    "text_tower": ["--task", "contrastive"],
    "caption_column": ["--task", "contrastive"],
}


def other(field):
    """A value that the field may have and has not by default."""
    kinds = [
        kind
        for kind in (typing.get_args(KINDS[field.name]) or (KINDS[field.name],))
        if kind is not type(None)
    ]
    if field.name in OTHERS:
        return OTHERS[field.name]
    if kinds == [bool]:
        return not field.default
    if field.name in SMALL:
        return 0.375
    return {int: 13, float: 1.75, str: "some text"}[kinds[0]]


@pytest.fixture
def told(monkeypatch):
    """Gives the options that the verb makes of a command line, and what it says; nothing is trained."""
    seen = []

    class Enough(Exception):
        pass

    def remember(options, on_event):
        seen.append(options)
        raise Enough

    monkeypatch.setattr("mlx_aimv2.finetuning.run.finetune", remember)

    def tell(*arguments):
        seen.clear()
        done = CliRunner().invoke(app, ["finetune", *map(str, arguments)])
        return (seen[0] if seen else None), done

    return tell


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_option_reaches_its_field(told, field):
    flag, value = f"--{field.name.replace('_', '-')}", other(field)
    given = [flag] if value is True else [flag, value[0] if isinstance(value, tuple) else value]
    options, done = told(*given, *WITH.get(field.name, []))
    assert options is not None, done.output
    assert getattr(options, field.name) == value != field.default
    assert type(getattr(options, field.name)) is type(value)
    changed = {one.name for one in FIELDS if getattr(options, one.name) != one.default}
    beside = WITH.get(field.name, [])[:1]
    assert changed == {field.name, *(option[2:].replace("-", "_") for option in beside)}


def test_without_options_all_have_their_defaults(told):
    assert told()[0] == FinetuneOptions()
    assert told("--no-resume", "--no-sweep")[0] == FinetuneOptions()
    assert told("-m", "a", "-d", "b")[0] == FinetuneOptions(model="a", data="b")


def test_the_command_line_wins_over_the_file(told, tmp_path):
    (tmp_path / "c.yaml").write_text("learning_rate: 1e-5\nepochs: 3\ngrad-checkpoint: true\nflip: 0.5\n")
    options, _ = told("-c", tmp_path / "c.yaml", "--epochs", "7", "--no-grad-checkpoint", "--flip", "0")
    assert options == FinetuneOptions(learning_rate=1e-5, epochs=7)


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [([], {}, "gpu"), ([], {"MLX_AIMV2_DEVICE": "cpu"}, "gpu"), (["--device", "cpu"], {}, "cpu")],
)
def test_the_device_of_the_file_is_the_default(told, tmp_path, monkeypatch, arguments, environment, expected):
    used = []
    monkeypatch.delenv("MLX_AIMV2_DEVICE", raising=False)
    monkeypatch.setattr("mlx_aimv2.backend.device.use_device", used.append)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "c.yaml").write_text("device: gpu\nepochs: 3\n")
    options, done = told("-c", tmp_path / "c.yaml", *arguments)
    assert options == FinetuneOptions(epochs=3), done.output
    assert used == [expected]


def test_help_lists_every_option_with_its_default(cli):
    done = cli("finetune", "--help", COLUMNS="300")
    shown = " ".join(done.stdout.split())
    for field in FIELDS:
        assert f"--{field.name.replace('_', '-')} " in shown.replace("/", " "), field.name
        first_words = field.metadata["help"].split(".")[0].split("[")[0]
        assert " ".join(first_words.split()) in shown, field.name
    for panel in ("Data", "Method", "Training", "Augmentation", "Run"):
        assert f" {panel} " in shown
    for text in (
        "[default: 16]",
        "[default: adamw]",
        "[default: the method's]",
        "[default: 0.0]",
        "--dry-run",
    ):
        assert text in shown


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two colours with five images each, in a folder whose name needs quotes."""
    root, rng = tmp_path_factory.mktemp("finetune") / "two colours", np.random.default_rng(0)
    for name, colour in {"blue": (40, 60, 200), "red": (210, 50, 40)}.items():
        (root / name).mkdir(parents=True)
        for number in range(5):
            noisy = np.array(colour) + rng.normal(0, 40, (50, 50, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def trained(cli, pair, data, tmp_path_factory):
    """A short run, and the folder that it wrote."""
    folder = tmp_path_factory.mktemp("out") / "my adapter"
    arguments = [
        "--data",
        data,
        "--model",
        pair,
        "--adapter-path",
        folder,
        "--epochs",
        "2",
        "--batch-size",
        "2",
    ]
    return cli("finetune", *arguments, "--learning-rate", "3e-3"), folder


def test_in_a_pipe_there_are_plain_lines_on_stderr_and_a_table_on_stdout(trained):
    done, folder = trained
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[0] == ["measure", "val"] and ["images", "2"] in rows
    assert "\x1b" not in done.stderr and "\r" not in done.stderr
    lines = done.stderr.splitlines()
    assert all(line.startswith("mlx-aimv2: ") for line in lines[:-3])
    assert all(line.startswith("  mlx-aimv2 ") for line in lines[-3:])  # commands, to be copied
    epochs = [line for line in lines if ": loss " in line and "val_loss" in line]
    assert [line.split(": ")[1] for line in epochs] == ["epoch 1 of 2", "epoch 2 of 2"]
    for part in ("val_top1 ", "images/s, ", "MB, ", " left"):
        assert part in epochs[0]
    assert any("step 4 of 8: loss " in line and "learning rate " in line for line in lines)
    assert any(line.startswith("mlx-aimv2: best was epoch ") and ": top1 " in line for line in lines)
    assert f"mlx-aimv2: wrote {folder}; its report: {folder / 'report'}" in lines


def test_the_next_commands_work(cli, trained, data, tmp_path):
    done, _ = trained
    commands = [
        shlex.split(line.split("mlx-aimv2 ", 1)[1])
        for line in done.stderr.splitlines()
        if " mlx-aimv2 " in line
    ]
    assert [command[0] for command in commands] == ["classify", "evaluate", "fuse"]
    places = {"photo.jpg": data / "red" / "0.png", "fused": tmp_path / "fused"}
    for command in commands:
        found = cli(*(places.get(word, word) for word in command))
        assert found.returncode == 0, (command, found.stderr)
    assert (tmp_path / "fused" / "model.safetensors").is_file()


def test_a_probe_is_not_told_to_be_fused(cli, pair, data, tmp_path):
    done = cli(
        "finetune",
        "-d",
        data,
        "-m",
        pair,
        "--adapter-path",
        tmp_path / "a",
        "--fine-tune-type",
        "knn",
        "--json",
    )
    assert done.returncode == 0 and " fuse " not in done.stderr
    found = json.loads(done.stdout)
    assert (found["trained"], found["trainable"], found["split"], found["path"]) == (
        None,
        0,
        "val",
        str(tmp_path / "a"),
    )
    assert {"top1", "macro_f1", "nll", "ece", "per_class", "confusion", "mistakes", "seconds"} <= set(found)


def test_json_says_how_it_went(cli, pair, data, tmp_path):
    done = cli(
        "finetune", "-d", data, "-m", pair, "--adapter-path", tmp_path / "a", "--epochs", "1", "--json"
    )
    found = json.loads(done.stdout)
    assert set(found["trained"]) == {"metric", "best", "best_epoch", "epochs", "steps", "stopped_early"}
    assert found["trained"]["epochs"] == 1 and 0 < found["trainable"] < found["parameters"]


def test_a_dry_run_measures_and_leaves_nothing(cli, pair, data, tmp_path):
    arguments = [
        "finetune",
        "-d",
        data,
        "-m",
        pair,
        "--adapter-path",
        tmp_path / "a",
        "--batch-size",
        "2",
        "--dry-run",
    ]
    done = cli(*arguments)
    assert done.returncode == 0, done.stderr
    rows = dict(line.split("\t") for line in done.stdout.splitlines())
    assert list(rows) == ["what", "trained", "steps", "time", "memory"]
    assert (
        rows["steps"] == "200 in 50 epochs"
        and " an epoch, " in rows["time"]
        and rows["memory"].endswith("B at most")
    )
    assert "2 steps were made to measure; nothing was written" in done.stderr
    assert list(tmp_path.iterdir()) == []
    found = json.loads(cli(*arguments, "--json", "--fine-tune-type", "linear").stdout)
    assert (found["steps"], found["epochs"], found["trainable"]) == (800, 200, 2 * 64 + 2)
    assert found["seconds"] > found["seconds_before"] > 0 and found["feature_bytes"] > 0
    swept = cli(*arguments, "--fine-tune-type", "linear", "--sweep", "--iters", "1").stdout
    rows = dict(line.split("\t") for line in swept.splitlines())
    assert rows["steps"] == "1 in 1 epoch, 13 times" and rows["disk"].endswith(" of features")
    assert list(tmp_path.iterdir()) == []


def test_it_goes_on_where_it_was(cli, pair, data, tmp_path):
    arguments = ["finetune", "-d", data, "-m", pair, "--adapter-path", tmp_path / "a", "--epochs", "1"]
    assert cli(*arguments, "--resume").returncode == 2
    assert cli(*arguments).returncode == 0
    again = cli(*arguments, "--resume")
    assert again.returncode == 0 and "best was epoch 1 of 1" in again.stderr
    assert "this run has ended after 1 step: more --epochs let it go on" in again.stderr
    kept = tmp_path / "a" / ".training"
    told = re.search(
        rf"{re.escape(str(kept))} \((\d+ kB)\) is needed only for --resume with more --epochs", again.stderr
    )
    assert told and [path.name for path in kept.iterdir()] == ["state.safetensors"]
    more = cli(*arguments[:-1], "3", "--resume")
    assert more.returncode == 0 and " of 3" in more.stderr, more.stderr
    assert "the run goes on from step 1 to 3 in place of 1" in more.stderr
    fewer = cli(*arguments, "--resume")
    assert fewer.returncode == 2 and "--epochs 1: the run in" in fewer.stderr


@pytest.mark.parametrize(
    ("best_epoch", "epochs", "stopped", "told"),
    [(9, 10, False, True), (8, 10, False, False), (9, 10, True, False), (199, 200, False, False)],
)
def test_a_run_that_was_too_short_is_told_so(tmp_path, capsys, best_epoch, epochs, stopped, told):
    from mlx_aimv2.cli.finetune import _show_how_to_resume
    from mlx_aimv2.finetuning.options import FinetuneOptions
    from mlx_aimv2.training.loop import Trained

    (tmp_path / ".training").mkdir()
    (tmp_path / ".training" / "state.safetensors").write_bytes(b"0" * 2_000_000)
    trained = Trained("top1", 0.9, best_epoch, epochs, 8 * epochs, stopped)
    _show_how_to_resume(
        SimpleNamespace(folder=tmp_path, trained=trained), FinetuneOptions(fine_tune_type="linear")
    )
    lines = capsys.readouterr().err.splitlines()
    assert "(2 MB) is needed only for --resume" in lines[0] and len(lines) == 1 + told
    if told:
        assert lines[1] == (
            "mlx-aimv2: a run of 80 steps is short for linear, and the last epoch was the best:"
            " --resume --epochs 125 goes on"
        )


@pytest.mark.parametrize("saved", [False, True])
def test_an_interruption_says_how_to_go_on(monkeypatch, capsys, tmp_path, saved):
    from mlx_aimv2.cli.finetune import finetune

    def interrupted(options, on_event):
        if saved:
            (tmp_path / ".training").mkdir()
            (tmp_path / ".training" / "state.safetensors").touch()
        raise KeyboardInterrupt

    class Nothing:
        """The context of a command line on which nothing else was said."""

        def get_parameter_source(self, name):
            return None

    monkeypatch.setattr("mlx_aimv2.finetuning.run.finetune", interrupted)
    with pytest.raises(SystemExit) as caught:
        finetune(context=Nothing(), data="images", adapter_path=str(tmp_path))
    assert caught.value.code == 130
    how = f": --resume goes on with the run in {tmp_path}" if saved else ""
    assert capsys.readouterr().err == f"mlx-aimv2: interrupted{how}\n"


def test_a_broken_image_is_named_and_the_rest_trained_on(cli, pair, data, tmp_path):
    import shutil

    copy = shutil.copytree(data, tmp_path / "data")
    (copy / "red" / "broken.png").write_bytes(b"no")
    done = cli("finetune", "-d", copy, "-m", pair, "--adapter-path", tmp_path / "a", "--epochs", "1")
    assert done.returncode == 1 and done.stdout
    assert done.stderr.count("skipped ") == 1 and "broken.png" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is no data: give --data FOLDER, with a folder per class in it"),
        (["--data", "{tmp}/none"], "No such file or directory: name a folder of images"),
        (["--data", "{data}", "--fine-tune-type", "qlora"], "--fine-tune-type 'qlora' is not one of linear,"),
        (["--data", "{data}", "--learning-rate", "0"], "--learning-rate must be more than 0, not 0.0"),
        (["--data", "{data}", "-c", "{tmp}/c.yaml"], "c.yaml cannot be read: No such file or directory"),
        (["--data", "{data}", "-c", "{tmp}/tpu.yaml"], "device 'tpu' is neither cpu nor gpu"),
        (["--data", "{data}", "--device", "tpu"], "device 'tpu' is neither cpu nor gpu"),
        (["--data", "{data}/red"], "red holds no folder per class: put the images of each class into one"),
        (["--data", "{data}", "--val-fraction", "0"], "there are no images for validation"),
        (["--data", "{data}", "--num-layers", "99"], "--num-layers 99: this encoder has 3 layers"),
    ],
)
def test_mistakes_get_one_clear_line(cli, pair, data, tmp_path, arguments, message):
    (tmp_path / "tpu.yaml").write_text("device: tpu\n")
    filled = [argument.format(tmp=tmp_path, data=data) for argument in arguments]
    done = cli("finetune", "--model", pair, "--adapter-path", tmp_path / "a", *filled)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and not done.stdout and not (tmp_path / "a").exists()
    assert (
        len([line for line in done.stderr.splitlines() if "error: " in line]) == 1
        and "Traceback" not in done.stderr
    )


def test_words_are_no_numbers(cli):
    done = cli("finetune", "--epochs", "many")
    assert done.returncode == 2 and "--epochs" in done.stderr


def test_options_are_known_without_mlx():
    program = "import sys, mlx_aimv2.cli.finetune; print({'mlx.core', 'numpy', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


def test_what_is_shown_of_a_run(monkeypatch, capsys, tmp_path):
    """Names with spaces are quoted, and the revision goes along."""
    from types import SimpleNamespace

    from mlx_aimv2.cli.finetune import _show

    evaluation = SimpleNamespace(metrics=SimpleNamespace(rows=lambda: [("top-1", "50%")]))
    finished = Finished(tmp_path / "a b", None, evaluation, "test", 10, 1000, 65.0)
    _show(
        finished, FinetuneOptions(data="my data", model="m", revision="v1", fine_tune_type="full"), json=False
    )
    shown = capsys.readouterr()
    assert shown.out == "measure\ttest\ntop-1\t50%\n"
    assert "trained 10 of 1,000 parameters (1.00%) in 1 min 05 s" in shown.err
    assert (
        f"evaluate --data 'my data' --split test --model m --revision v1 --adapter-path '{tmp_path / 'a b'}'"
        in shown.err
    )
    assert "best was" not in shown.err


@pytest.mark.parametrize("shown", [(), ("--json",)], ids=["table", "json"])
def test_a_dry_run_that_skips_images_says_so_in_its_status(cli, pair, data, tmp_path, shown):
    """As every other verb does."""
    own = shutil.copytree(data, tmp_path / "data")
    broken = next(folder for folder in sorted(own.iterdir()) if folder.is_dir()) / "broken.png"
    broken.write_bytes(b"no image")
    arguments = (
        "finetune",
        "-d",
        own,
        "-m",
        pair,
        "--fine-tune-type",
        "linear",
        "--adapter-path",
        tmp_path / "a",
    )
    done = cli(*arguments, "--dry-run", *shown)
    assert done.returncode == 1 and f"skipped {broken}: " in done.stderr and done.stdout.count("\n") > 3
    broken.unlink()
    assert cli(*arguments, "--dry-run", *shown).returncode == 0
