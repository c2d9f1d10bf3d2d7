"""The benchmarks: the suite with a tiny model; an extra brings everything that the scripts import."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUITE = ROOT / "benchmarks" / "run.py"
sys.path.append(str(SUITE.parent))

from bars import BARS  # noqa: E402
from cases import forward, loading  # noqa: E402
from results import Results  # noqa: E402
from suite import Case, Runner, Setup, Side  # noqa: E402

DISTRIBUTIONS = {
    "PIL": "pillow",
    "mlx_aimv2": "mlx-aimv2",
    "pillow_heif": "pillow-heif",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def imports(path):
    """The distributions that a script imports."""
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            roots.add(node.module.split(".")[0])
    own = {script.stem for script in (ROOT / "benchmarks").iterdir()} | {"drawn_world"}
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


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").rglob("*.py")), ids=lambda path: path.stem)
def test_the_extra_brings_what_a_benchmark_imports(path):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = imports(path)
    assert needed <= installed(project, "bench") | installed(project, "peers")
    text = path.read_text(encoding="utf-8")
    if needed - installed(project, "cpu") and "__main__" in text:  # a script, not a module of one
        assert "pip install 'mlx-aimv2[bench]'" in ast.get_docstring(ast.parse(text))


def test_the_extra_test_brings_scikit_learn():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "scikit-learn" in installed(project, "test")


@pytest.fixture
def without_peers(tmp_path):
    """A Python without installed packages."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    program.chmod(0o755)
    return program


def run_suite(*options):
    return subprocess.run(
        [sys.executable, SUITE, "--quick", *map(str, options)], capture_output=True, text=True
    )


def test_the_suite_measures_and_names_what_is_missing(tmp_path, without_peers):
    output, cases = tmp_path / "output", ("forward/batch 1", "start/--help")
    options = ("--output", output, "--work", tmp_path, "--peer-python", without_peers)
    for case in cases:  # the second one is merged into the results of the first
        done = run_suite("--only", case, *options)
        assert done.returncode == 0, done.stderr
    stored = json.loads((output / "results.json").read_text())
    assert set(stored["cases"]) == set(cases)
    sides = stored["cases"]["forward/batch 1"]["sides"]
    assert sides["transformers float32"] == {"rounds": [], "problem": "torch is not installed"}
    assert sides["timm float32"]["problem"] == "timm is not installed"
    (measured,) = sides["mlx-aimv2"]["rounds"]
    assert measured["timings"][""][0] > 0
    assert measured["peak_bytes"] > 1e6
    report = (output / "RESULTS.md").read_text()
    assert "| batch 1 | timm float32 | timm is not installed |" in report
    assert (
        "| large-224, batch 1: forward over transformers float32 | at most 0.95 | not measured |  |" in report
    )
    assert (output / "plots" / "forward.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_every_side_of_this_package_runs_and_every_bar_finds_its_numbers(tmp_path, without_peers):
    output = tmp_path / "output"
    done = run_suite("--output", output, "--work", tmp_path, "--peer-python", without_peers)
    assert done.returncode == 0, done.stderr
    stored = json.loads((output / "results.json").read_text())
    results = Results(stored["machine"], stored["cases"])
    problems = {why for case in results.cases for why in results.problems(case).values()}
    assert all(why.endswith(" is not installed") for why in problems), problems
    unmeasured = {bar.text for bar in BARS if bar.measure(results) is None}
    peers = re.compile("over transformers|transformers .*over|over PEFT")
    assert unmeasured == {bar.text for bar in BARS if peers.search(bar.text)}


def test_a_gpu_compares_half_precision_with_torch_compile(monkeypatch):
    monkeypatch.setattr("mlx_aimv2.backend.device.gpu_available", lambda: True)
    names = [side.name for side in forward.batch_case(32, rounds=1).sides]
    assert names[:3] == ["mlx-aimv2", "transformers float32", "mlx-aimv2 bfloat16"]
    assert names[3:] == [f"transformers {dtype}{how}" for dtype in ("float16", "bfloat16")
                         for how in ("", ", torch.compile")]  # fmt: skip


def test_an_unknown_case_is_refused(tmp_path):
    done = run_suite("--only", "speed", "--output", tmp_path)
    assert done.returncode == 1
    assert "--only speed: no such case; --list prints them" in done.stderr


def test_rounds_and_a_folder_that_are_not_valid_are_refused(tmp_path):
    done = run_suite("--rounds", "0", "--list")
    assert done.returncode == 2 and "'0' is not a whole number of at least 1" in done.stderr
    (tmp_path / "file").touch()
    done = run_suite("--quick", "--only", "start", "--output", tmp_path / "file" / "out")
    assert done.returncode == 1 and "this folder cannot be made (Not a directory)" in done.stderr


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_damaged_file_of_results_is_named(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(SystemExit) as raised:
        Results.read(path, {"cpu": "one"})
    assert f"{path} does not hold results" in str(raised.value) and "delete it" in str(raised.value)


def test_a_side_that_fails_is_named_and_the_others_run(tmp_path):
    sides = (Side("broken", loading.mlx, {"pixels": 1}), Side("floor", loading.floor, {"images": 1}))
    results = Runner(Setup(str(tmp_path), quick=True), rounds=1).run(Case("first vector", sides))
    assert results["broken"]["problem"].startswith("TypeError: mlx() got an unexpected keyword argument")
    assert results["floor"]["problem"].startswith("FileNotFoundError: ")


def measured(**seconds):
    """The sides of a case with one run each."""
    return {
        name: {"rounds": [{"timings": {"": [x]}, "values": {}, "peak_bytes": 1}]}
        for name, x in seconds.items()
    }


def test_a_bar_of_a_time():
    bar = next(bar for bar in BARS if bar.text.startswith("mlx-aimv2 --help"))
    case = {"images": 0, "sides": measured(**{"mlx-aimv2": 0.15})}
    assert bar.measure(Results({}, {"start/--help": case})) == pytest.approx(0.15)
    assert bar.is_met(0.25)
    assert not bar.is_met(0.26)


def test_a_bar_compares_medians():
    bar = next(bar for bar in BARS if bar.text.startswith("4-bit over float32"))
    sides = measured(**{"4-bit": 1.2, "float32": 1.0})
    sides["4-bit"]["rounds"] += measured(x=1.0)["x"]["rounds"] + measured(x=9.0)["x"]["rounds"]
    ratio = bar.measure(Results({}, {"quantized/batch 1": {"images": 0, "sides": sides}}))
    assert ratio == pytest.approx(1.2)
    assert not bar.is_met(ratio)
    assert bar.is_met(1.1)
    assert bar.measure(Results({})) is None
