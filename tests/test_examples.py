"""Every example, and the script at the top of the repository, as their users run them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(script, *arguments, folder):
    environment = {**os.environ, "MLX_AIMV2_DEVICE": "cpu"}
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(script, tmp_path):
    done = run(script, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_script_converts(tiny_pair, tmp_path):
    done = run(ROOT / "convert.py", "--hf-path", tiny_pair, "--mlx-path", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").exists()
