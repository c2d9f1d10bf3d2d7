"""Every module that the package, its tests, examples and benchmarks import is declared in pyproject.toml."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMES = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "sklearn": "scikit-learn",
    "mkdocs": "mkdocs-material",
    "pillow_jxl": "pillow-jxl-plugin",
    "Quartz": "pyobjc-framework-quartz",
    "objc": "pyobjc-framework-quartz",  # by way of pyobjc-core
}  # where a module is not called like its project
REQUIREMENT = re.compile(r'"([A-Za-z0-9._-]+)(?:\[([^\]]*)\])?[^"]*"')


def project(module):
    return NAMES.get(module, module).replace("_", "-").lower()


def section(text, start):
    """The lists of requirements of a table of pyproject.toml, by name; Python 3.10 cannot read TOML."""
    body = text.partition(f"\n[{start}]\n")[2].partition("\n[")[0]
    lists = re.findall(r"^([\w-]+) = \[((?:[^\[\]]|\[[^\]]*\])*)\]", body, re.MULTILINE)
    return {name: REQUIREMENT.findall(entries) for name, entries in lists}


TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CORE = {name.lower() for name, _ in section(TEXT, "project")["dependencies"]}
EXTRAS = section(TEXT, "project.optional-dependencies")


def brought_by(extra):
    """The projects that an extra installs, with the extras that it names."""
    found = set()
    for name, others in EXTRAS[extra]:
        if name == "mlx-aimv2":
            found = found.union(*map(brought_by, others.split(",")))
        else:
            found.add(name.lower().replace("_", "-"))
    return found


def imported(path):
    """The projects that a file imports, each with whether that is done when the file is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(node) for function in ast.walk(tree) if isinstance(function, (ast.FunctionDef, ast.If, ast.Try))
              for node in ast.walk(function)}  # fmt: skip
    for_checkers = {id(node) for branch in ast.walk(tree) if isinstance(branch, ast.If)
                    and getattr(branch.test, "id", "") == "TYPE_CHECKING" for node in ast.walk(branch)}  # fmt: skip
    for node in ast.walk(tree):
        if id(node) in for_checkers:
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        for name in names:
            top = (
                "mlx-data" if name == "mlx.data" else name.partition(".")[0]
            )  # it shares the namespace of MLX
            yield project(top), id(node) not in inside


def local(folder):
    """Modules beside the files of a folder."""
    return {project(path.stem) for path in [*folder.rglob("*.py"), *folder.iterdir()]} | {"mlx-aimv2"}


STDLIB = {project(name) for name in sys.stdlib_module_names}


def foreign(folder):
    known = STDLIB | local(ROOT / folder) | local(ROOT / "tests") | local(ROOT / "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py")):
        for name, at_once in imported(path):
            if name not in known:
                yield path, name, at_once


def test_the_lists_are_read():
    assert {"mlx", "numpy", "typer", "rich", "pillow", "huggingface-hub"} <= {
        n.replace("_", "-") for n in CORE
    }
    assert {"heif", "parquet", "test", "parity"} <= set(EXTRAS)
    assert {"pytest", "ruff", "pyarrow"} <= brought_by("dev")  # lists within lists are followed


def test_the_package_imports_what_it_declares():
    core = {name.replace("_", "-") for name in CORE}
    optional = set().union(*map(brought_by, set(EXTRAS) - {"test", "dev", "parity", "bench", "peers"}))
    undeclared = {
        (str(path.relative_to(ROOT)), name)
        for path, name, at_once in foreign("mlx_aimv2")
        if name not in (core if at_once else core | optional)
    }
    assert undeclared == set()


@pytest.mark.parametrize(("folder", "extras"), [("tests", ("dev", "parity")), ("benchmarks", ("bench", "peers")),
                                                ("docs", ("docs", "test")), ("examples", ("ray",))])  # fmt: skip
def test_so_does_what_lies_beside_it(folder, extras):
    declared = {name.replace("_", "-") for name in CORE}.union(*map(brought_by, extras))
    assert {(path.name, name) for path, name, _ in foreign(folder) if name not in declared} == set()


def test_nothing_is_declared_in_vain():
    used = {name for _, name, _ in foreign("mlx_aimv2")}
    assert {name.replace("_", "-") for name in CORE} <= used
