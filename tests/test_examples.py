"""Every example, the notebook, and the script at the top of the repository, as their users run them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mlx_aimv2.checkpoints.bundled import CHECKPOINT

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
TRAINING = "train_demo.py"  # hours of it: its parts have tests of their own
SCRIPTS = sorted(path for path in EXAMPLES.glob("*.py") if path.name != TRAINING)
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
LONGEST = 60  # lines
bundled = pytest.mark.skipif(not CHECKPOINT.exists(), reason="the checkpoint is not in this tree")


def run(script, *arguments, folder):
    environment = {**os.environ, "MLX_AIMV2_DEVICE": "cpu", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error::UserWarning", str(script), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=environment)


def code_cells(path):
    """The sources of the code cells of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@bundled
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_an_example_runs(script, tmp_path):
    done = run(script, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not done.stderr
    left = {path.name for path in tmp_path.iterdir()}
    assert left == set(re.findall(r'"(\w+\.png)"', script.read_text()) if left else ())


@bundled
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom(notebook, tmp_path):
    (tmp_path / "cells.py").write_text("\n".join(code_cells(notebook)), encoding="utf-8")
    done = run(tmp_path / "cells.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_valid_and_holds_no_output(notebook):
    data = json.loads(notebook.read_text(encoding="utf-8"))
    assert (data["nbformat"], data["nbformat_minor"]) == (4, 5)
    assert data["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in data["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in data["cells"]:
        assert set(cell) - {"execution_count", "outputs"} == {"cell_type", "id", "metadata", "source"}
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        if cell["cell_type"] == "code":
            assert cell["execution_count"] is None
            assert cell["outputs"] == []


@pytest.mark.parametrize("path", [*SCRIPTS, *NOTEBOOKS], ids=lambda path: path.name)
def test_an_example_is_short_and_the_readme_names_it(path):
    source = path.read_text(encoding="utf-8") if path.suffix == ".py" else "\n".join(code_cells(path))
    assert len(source.splitlines()) < LONGEST
    assert f"examples/{path.name}" in (ROOT / "README.md").read_text(encoding="utf-8")


@bundled
def test_the_patches_are_a_picture(tmp_path):
    run(EXAMPLES / "patches.py", folder=tmp_path)
    with Image.open(tmp_path / "patches.png") as picture:
        assert picture.size == (6 * 224, 2 * 224)


@bundled
def test_labels_of_the_zero_shot_example_are_mostly_right(tmp_path):
    """Needs the trained weights."""
    lines = run(EXAMPLES / "zero_shot.py", folder=tmp_path).stdout.splitlines()
    told = list(zip(lines[::2], lines[1::2], strict=True))
    right = sum(label.split("%")[0].split()[1] in caption for caption, label in told)
    assert right >= 6
    assert len(told) == 8


@bundled
def test_fine_tuning_examples_learn_something(tmp_path):
    """Needs the trained weights: chance is a quarter for both."""
    done = run(EXAMPLES / "lora.py", folder=tmp_path)
    assert int(re.search(r"not trained on: (\d+)%", done.stdout)[1]) >= 70
    done = run(EXAMPLES / "probe.py", folder=tmp_path)
    assert float(re.search(r"macro F1: ([\d.]+)%", done.stdout)[1]) >= 50


def test_the_script_converts(tiny_pair, tmp_path):
    done = run(ROOT / "convert.py", "--hf-path", tiny_pair, "--mlx-path", "out", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").exists()
