"""The package in the hands of a type checker: the Python of the documentation passes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.documentation import python_blocks

ROOT = Path(__file__).parents[1]
# The settings of `make check`, so that both use one cache; the modules of the test are checked more strictly.
SETTINGS = (
    (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    + """
[[tool.mypy.overrides]]
module = {names}
disallow_untyped_calls = true
warn_return_any = true
warn_unreachable = false
"""
)
CALLS = """
import mlx.core as mx

from mlx_aimv2 import Aimv2Model, Aimv2VisionModel, convert, load

convert("lit", "lit-4bit", quantize=True, q_bits=4)
model, processor = load("lit")
assert isinstance(model, Aimv2Model)
logits: mx.array = model(**processor(images="a.jpg", text=["a dog"])).logits_per_image
logits = model(**processor("a.jpg", "a dog"), return_loss=True).logits_per_image
pixels: mx.array = processor(images=["a.jpg"])["pixel_values"]
ids: mx.array = processor(text="a dog")["input_ids"]
mask: mx.array = processor(None, ["a dog"])["attention_mask"]
"""
WRONG = """
from mlx_aimv2 import Aimv2VisionModel, convert, load

model, processor = load("large-224")
assert isinstance(model, Aimv2VisionModel)
model(**processor(text="a dog"))
processor(images="a.jpg")["input_ids"]
processor()
convert("lit", "lit-4bit", q_bit=4)
"""


def checked(folder, cache, **sources):
    """What mypy says of some modules, by the name of each; the package itself is checked elsewhere."""
    (folder / "pyproject.toml").write_text(SETTINGS.replace("{names}", str(list(sources))))
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    files = [f"{name}.py" for name in sources]
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        "pyproject.toml",
        "--cache-dir",
        str(cache),
        *files,
    ]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode in (0, 1), done.stderr
    return {name: re.findall(rf"^{name}\.py:(\d+): error: (.*)$", done.stdout, re.M) for name in sources}


def test_python_that_users_copy_passes_a_strict_type_checker(tmp_path, pytestconfig):
    cache = pytestconfig.rootpath / ".mypy_cache"
    pytest.importorskip("mypy")
    pages = {re.sub(r"\W", "_", block.place): block.text for block in python_blocks()}
    assert len(pages) >= 10
    found = checked(tmp_path, cache, **pages, calls=CALLS, wrong=WRONG)
    wrong = found.pop("wrong")
    assert found == {name: [] for name in (*pages, "calls")}
    assert {int(line) for line, _ in wrong} == {6, 7, 8, 9}
