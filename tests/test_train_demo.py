"""The script that trains the checkpoint `demo`: on very little, killed on its way, to the end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlx_aimv2.checkpoints.bundled import bundled_folder

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, str(ROOT / "examples" / "train_demo.py"), "--work", "work", "--pictures", "7000"]
ENVIRONMENT = {**os.environ, "MLX_AIMV2_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_a_killed_training_goes_on_to_a_checkpoint_like_the_one_in_the_package(tmp_path):
    started = subprocess.Popen(COMMAND, cwd=tmp_path, env=ENVIRONMENT)
    log = tmp_path / "work" / "shapes" / "metrics.jsonl"
    while not (log.exists() and '"step": 55' in log.read_text()):  # a state was saved at step 50
        assert started.poll() is None
        time.sleep(0.1)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()

    done = subprocess.run(COMMAND, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines() if '"loss"' in line]
    assert sorted(set(steps)) == list(range(1, 109))
    made, shipped = tmp_path / "work" / "demo", bundled_folder()
    for name in (
        "config.json",
        "vocab.json",
        "merges.txt",
        "preprocessor_config.json",
        "tokenizer_config.json",
    ):
        assert (made / name).read_bytes() == (shipped / name).read_bytes()


def test_other_arguments_need_another_folder(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "arguments.json").write_text('{"pictures": 7}')
    done = subprocess.run(COMMAND, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "work was begun with other arguments, see work/arguments.json: name another folder with --work\n"
    )
