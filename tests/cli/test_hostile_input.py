"""Files, streams and signals that are not what one hopes for."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers.terminal import Terminal, start

ENVIRONMENT = {**os.environ, "MLX_AIMV2_DEVICE": "cpu", "HF_HUB_OFFLINE": "1"}
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)  # with it, nothing is left to write at the end


def shell(command, **environment):
    line = command.replace("mlx-aimv2", f"{sys.executable} -m mlx_aimv2")
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=60, env={**ENVIRONMENT, **environment}
    )


def test_a_named_pipe_is_skipped_and_does_not_hang(cli, pair, photos, tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    done = cli("embed", tmp_path / "x.jpg", photos / "0.png", "--model", pair)
    assert done.returncode == 1
    assert "a named pipe, not a regular file" in done.stderr
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_named_pipe_in_a_checkpoint_is_refused(cli, pair, photos, tmp_path, name):
    folder = tmp_path / "pair"
    folder.mkdir()
    for path in pair.iterdir():
        if path.name != name:
            os.link(path, folder / path.name)
    os.mkfifo(folder / name)
    done = cli("embed", photos, "--model", folder)
    assert done.returncode == 1
    assert "not a regular file" in done.stderr


def test_a_name_the_format_cannot_hold_is_found_before_the_work(cli, pair, photos, tmp_path):
    os.link(photos / "0.png", tmp_path / "a\nb.png")
    done = cli("embed", tmp_path, "--model", "/no/such/model", "-o", tmp_path / "x.npy")
    assert done.returncode == 2
    assert "has a line break in its name" in done.stderr


def test_a_full_log_does_not_end_the_work(pair, photos, tmp_path):
    done = shell(f"mlx-aimv2 embed missing.jpg {photos} --model {pair} -o {tmp_path}/x.npz 2>/dev/full")
    assert done.returncode == 1
    with np.load(tmp_path / "x.npz") as data:
        assert len(data["paths"]) == 3


def test_closed_streams(pair, photos):
    closed = shell(f"mlx-aimv2 embed {photos} missing.jpg --model {pair} 2>&-")
    assert closed.returncode == 1
    assert len([json.loads(line) for line in closed.stdout.splitlines()]) == 3
    silent = shell(f"mlx-aimv2 embed {photos} --model {pair} >&-")
    assert silent.returncode == 0
    assert "Traceback" not in silent.stderr and "unexpected" not in silent.stderr


def test_a_full_disk_leaves_a_folder_that_a_later_run_completes(pair, photos, tmp_path):
    folder = tmp_path / "vectors"
    command = f"mlx-aimv2 embed {photos} missing.jpg --model {pair} -o {folder}/"
    full = shell(f"ulimit -f 0; {command}")  # no file can have a byte
    assert full.returncode == 1
    assert "cannot be written: File too large" in full.stderr
    assert "Traceback" not in full.stderr and "unexpected" not in full.stderr
    assert not [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]
    done = shell(command)
    assert done.returncode == 1  # of the missing image
    assert "wrote 3 vectors in all" in done.stderr
    assert len((folder / "errors.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("arguments", ["--help", "--version", "models", "info --system"])
def test_a_full_stdout_is_one_line(arguments):
    done = shell(f"mlx-aimv2 {arguments} >/dev/full")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr == "mlx-aimv2: error: stdout cannot be written: No space left on device\n"


def test_an_ascii_terminal_gets_escapes(pair, photos, tmp_path):
    os.link(photos / "0.png", tmp_path / "ünï.png")
    done = shell(f"mlx-aimv2 embed {tmp_path} --model {pair}", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "nï" not in done.stdout


def test_names_cannot_order_a_terminal_about(cli, pair, photos, tmp_path):
    os.link(photos / "0.png", tmp_path / "a\x1b[31mred.png")
    done = cli("classify", tmp_path, "-l", "a,b", "--model", pair)
    assert "\x1b" not in done.stdout
    assert "\\x1b[31mred.png" in done.stdout


def test_without_a_temporary_folder_nothing_is_compiled_and_all_works(pair, photos):
    done = shell(f"mlx-aimv2 embed {photos} --model {pair}", TMPDIR="/nonexistent")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_endings_save_too(pair, many, tmp_path, number):
    terminal, target = Terminal(), tmp_path / "x.npz"
    with start(["embed", many("many", 10_000), "--model", pair, "-o", target], terminal) as process:
        terminal.wait_for(r"[1-9]\d*/10000")
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number
    terminal.close()
    assert ", interrupted" in terminal.text
    with np.load(target) as data:
        assert 10_000 > len(data["embeddings"]) == len(data["paths"]) > 0


def test_an_empty_folder_among_others_is_named_and_not_the_end(cli, pair, photos, tmp_path):
    (tmp_path / "dir.jpg").mkdir()
    done = cli("embed", photos / "0.png", tmp_path / "dir.jpg", "--model", pair)
    assert done.returncode == 1
    assert f"skipped {tmp_path / 'dir.jpg'}:" in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_weights_of_the_wrong_type_are_refused(cli, pair, photos, tmp_path):
    import mlx_aimv2  # noqa: F401 - before mlx

    import mlx.core as mx  # isort: skip

    folder = tmp_path / "pair"
    folder.mkdir()
    for path in pair.iterdir():
        if path.suffix != ".safetensors":
            os.link(path, folder / path.name)
    tensors = mx.load(str(pair / "model.safetensors"))
    name = "image_encoder.trunk.post_trunk_norm.weight"
    mx.save_safetensors(str(folder / "model.safetensors"), {**tensors, name: tensors[name].astype(mx.int32)})
    for arguments in (["embed", photos, "--model", folder], ["info", folder]):
        done = cli(*arguments)
        assert done.returncode == 1
        assert "1 of the wrong type: vision_model.rms_norm.weight is int32" in done.stderr + done.stdout
