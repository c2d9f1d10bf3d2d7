"""Every example, the notebook, and the script at the top of the repository."""

import contextlib
import functools
import io
import json
import os
import re
import runpy
import subprocess
import sys
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
WITH_RAY = EXAMPLES / "ray_embed.py"  # takes arguments, and the extra `ray`
LONGEST = 60  # lines
LEFT = {"patches.py": {"patches.png"}}  # the files that an example leaves; the others leave none
NO_BLAS = "no fast BLAS was found"  # as in pyproject.toml: such a machine runs them too

Run = namedtuple("Run", "stdout stderr folder")


@contextlib.contextmanager
def in_folder(folder):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run(script, folder):
    """Run a script in this process, in a folder; a warning is an error."""
    with (
        in_folder(folder),
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", NO_BLAS, UserWarning)
        runpy.run_path(str(script), run_name="__main__")
    return Run(stdout.getvalue(), stderr.getvalue(), folder)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """Gives the run of an example by its name; each runs once."""

    @functools.cache
    def once(name):
        return run(EXAMPLES / name, tmp_path_factory.mktemp(name.removesuffix(".py")))

    return once


def is_told(label, caption):
    """Whether a caption tells of a thing, or of several, with just this colour and shape."""
    return re.search(rf"\b{label}(s|es)?\b", caption) is not None


def code_cells(path):
    """The sources of the code cells of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path != WITH_RAY], ids=lambda path: path.name)
def test_an_example_runs(script, example):
    done = example(script.name)
    assert done.stdout
    assert not done.stderr
    assert {path.name for path in done.folder.iterdir()} == LEFT.get(script.name, set())


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom(notebook, tmp_path):
    (tmp_path / "cells.py").write_text("\n".join(code_cells(notebook)), encoding="utf-8")
    assert not run(tmp_path / "cells.py", tmp_path).stderr


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


def test_the_patches_are_an_image(example):
    with Image.open(example("patches.py").folder / "patches.png") as image:
        assert image.size == (6 * 224, 2 * 224)


@pytest.mark.parametrize(
    ("label", "caption", "told"),
    [
        ("red circle", "a small plain red circle on the left on a grey background", True),
        ("red cross", "three dotted red crosses on a white background", True),
        ("red circle", "a plain red semicircle at the top on a grey background", False),
        ("red circle", "a plain blue circle left of a plain red star on a grey background", False),
    ],
)
def test_a_label_is_told_by_colour_and_shape_together(label, caption, told):
    assert is_told(label, caption) == told


def test_labels_of_the_zero_shot_example_are_better_than_chance(example):
    """Needs the trained weights."""
    lines = example("zero_shot.py").stdout.splitlines()
    found = [
        (caption, re.match(r" +(.+?) \d+%", best)[1])
        for caption, best in zip(lines[::2], lines[1::2], strict=True)
    ]
    assert len(found) == 8
    assert sum(is_told(label, caption) for caption, label in found) >= 5


def test_fine_tuning_examples_learn_something(example):
    """Needs the trained weights: four shapes at chance, and numbers of which one is the most frequent."""
    assert int(re.search(r"held-out images: (\d+)%", example("lora.py").stdout)[1]) >= 70
    assert float(re.search(r"macro F1: ([\d.]+)%", example("probe.py").stdout)[1]) >= 35


@pytest.mark.slow
def test_the_example_of_ray_writes_the_rows_of_one_process(tmp_path):
    pytest.importorskip("ray")
    from pyarrow import parquet

    from mlx_aimv2 import Embedder, load, sample_images

    paths = [str(sample.path) for sample in sample_images()]
    expected = dict(zip(paths, Embedder(*load("demo")).images(paths), strict=True))
    table = {"path": paths, "image": [Path(path).read_bytes() for path in paths]}
    parquet.write_table(pyarrow.table(table), tmp_path / "table.parquet")
    environment = {**os.environ, "MLX_AIMV2_DEVICE": "cpu", "RAY_USAGE_STATS_ENABLED": "0"}
    for number, arguments in enumerate(
        ([Path(paths[0]).parent], [tmp_path / "table.parquet", "--column", "image"])
    ):
        source, *options = map(str, arguments)
        command = [sys.executable, str(WITH_RAY), source, f"{tmp_path}/{number}", "--model", "demo", *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        assert f"wrote 12 rows to {tmp_path}/{number}, 0 without an embedding" in done.stdout
        rows = parquet.read_table(tmp_path / f"{number}").to_pylist()
        assert sorted(row["path"] for row in rows) == sorted(paths)
        for row in rows:
            np.testing.assert_allclose(row["embedding"], expected[row["path"]], atol=1e-6)
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert again.returncode != 0


def test_the_script_converts(tiny_pair, tmp_path):
    command = [sys.executable, str(ROOT / "convert.py"), "--hf-path", str(tiny_pair), "--mlx-path", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model.safetensors").exists()


FAILING = """
with EmbeddingService() as service:
    stream = service.embedder.stream
    service.embedder.stream = lambda images: 1 / 0
    print(service.embed(images[0]).exception())
    service.embedder.stream = stream
    print(len(service.embed(images[0]).result()))
try:
    service.embed(images[0])
except RuntimeError as error:
    print(error)
"""


def test_the_service_tells_of_a_batch_that_fails_and_goes_on(tmp_path):
    source = (EXAMPLES / "service.py").read_text(encoding="utf-8")
    (tmp_path / "failing.py").write_text(source + FAILING, encoding="utf-8")
    done = run(tmp_path / "failing.py", tmp_path)
    *_, error, numbers, ended = done.stdout.splitlines()
    assert (error, numbers) == ("division by zero", "192")
    assert "after shutdown" in ended
