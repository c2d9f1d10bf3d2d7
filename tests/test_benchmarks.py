"""The benchmarks: an extra brings everything that they import."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = {"PIL": "pillow", "mlx_aimv2": "mlx-aimv2", "sklearn": "scikit-learn", "yaml": "pyyaml"}


def imports(path):
    """The distributions that a script imports."""
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            roots.add(node.module.split(".")[0])
    own = {script.stem for script in path.parent.glob("*.py")} | {"drawn_world"}
    return {DISTRIBUTIONS.get(root, root) for root in roots - own - sys.stdlib_module_names}


def installed(project, extra):
    """The distributions that are installed with the package and an extra."""
    found, waiting = {"mlx-aimv2"}, [*project["dependencies"], f"mlx-aimv2[{extra}]"]
    while waiting:
        name, extras = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?", waiting.pop()).groups()
        found.add(name)
        if name == "mlx-aimv2":
            waiting += [each for one in extras.split(",") for each in project["optional-dependencies"][one]]
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_the_extra_brings_what_a_benchmark_imports(path):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = imports(path)
    assert needed <= installed(project, "bench")
    if needed - installed(project, "cpu"):
        assert "pip install 'mlx-aimv2[bench]'" in ast.get_docstring(
            ast.parse(path.read_text(encoding="utf-8"))
        )


def test_the_extra_test_brings_scikit_learn():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "scikit-learn" in installed(project, "test")
