import json
import os
import signal
import subprocess
import sys
import warnings

import pytest

import mlx_aimv2
from mlx_aimv2.cli import app, guard, interrupts
from mlx_aimv2.cli.live_bar import LIVE

HEAVY = {
    "mlx",
    "mlx.core",
    "PIL",
    "numpy",
    "matplotlib",
    "typer",
    "torch",
    "transformers",
    "huggingface_hub",
    "tokenizers",
}


def loaded_by(code):
    """Names of the modules that ``code`` loads in a fresh interpreter."""
    program = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_by("import mlx_aimv2") & HEAVY


def test_the_command_line_loads_only_what_parses_it():
    assert not loaded_by("import mlx_aimv2.cli.app") & (HEAVY - {"typer"})


@pytest.mark.parametrize(
    "verb", ["embed", "classify", "demo", "models", "info", "convert", "export", "evaluate", "fuse", "upload"]
)
def test_every_verb_has_help(cli, verb):
    done = cli(verb, "--help")
    assert done.returncode == 0
    assert f"mlx-aimv2 {verb}" in done.stdout


def test_help_names_the_exit_statuses(cli):
    assert "0 all done, 1 something could not be done" in " ".join(cli("--help").stdout.split())


def test_version_is_the_packages(cli):
    assert cli("--version").stdout == f"mlx-aimv2 {mlx_aimv2.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "embed --txt",
            "No such option: --txt (Possible options: --output, --text); see `mlx-aimv2 embed --help`",
        ),
        ("embed", "Missing argument 'IMAGES...'; see `mlx-aimv2 embed --help`"),
        ("evaluate a.jpg", "Got unexpected extra argument(s) (a.jpg); see `mlx-aimv2 evaluate --help`"),
        ("nope", "No such command 'nope'; see `mlx-aimv2 --help`"),
        (
            "embed -dash.png",
            "No such option: -d; write the file -dash.png as ./-dash.png; see `mlx-aimv2 embed --help`",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(cli, tmp_path, monkeypatch, arguments, message):
    (tmp_path / "-dash.png").touch()
    monkeypatch.chdir(tmp_path)
    done = cli(*arguments.split())
    assert done == (2, "", f"mlx-aimv2: error: {message}\n")


def test_shell_completion_offers_the_verbs(cli):
    done = cli(_MLX_AIMV2_COMPLETE="complete_bash", COMP_WORDS="mlx-aimv2 ", COMP_CWORD="1")
    assert "embed" in done.stdout.split()
    assert "classify" in done.stdout.split()


def test_convert_writes_what_info_then_describes(cli, pair, tmp_path):
    done = cli("convert", "--hf-path", pair, "--mlx-path", tmp_path / "out")
    assert done.returncode == 0
    assert json.loads(cli("info", tmp_path / "out", "--json").stdout)["layout"] == "mlx"
    again = cli("convert", "--hf-path", pair, "--mlx-path", tmp_path / "out")
    assert again.returncode == 2
    assert "exists already: name another, or replace it with --force" in again.stderr


def test_a_dry_run_shows_the_plan_and_writes_nothing(cli, pair, tmp_path):
    done = cli(
        "convert",
        "--hf-path",
        pair,
        "--mlx-path",
        tmp_path / "out",
        "-q",
        "--q-group-size",
        "32",
        "--dry-run",
    )
    assert done.returncode == 0
    assert "4-bit affine" in done.stdout
    assert "bits per weight; nothing was written" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--q-bits", "4"], "--q-bits says how to quantize, and nothing is quantized without -q"),
        (["-q", "-d"], "quantize and dequantize exclude each other"),
        (
            ["-q", "--q-bits", "7"],
            "has no 7 bits in groups of 64: bits 2, 3, 4, 5, 6, 8 in groups of 32, 64, 128",
        ),
        (["-q", "--q-mode", "int4"], "quantization mode 'int4' is not one of affine, mxfp4, nvfp4, mxfp8"),
        (["--max-shard-size", "much"], "'much' is not a size: write 5GB or 500MB"),
    ],
)
def test_convert_refuses_in_one_line(cli, pair, tmp_path, arguments, message):
    done = cli("convert", "--hf-path", pair, "--mlx-path", tmp_path / "out", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_backend_one_line_says_what_to_install(tmp_path, pair, photos):
    blocker = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'mlx.core': raise ImportError('libmlx.so: cannot open shared object file')\n"
        "sys.meta_path.insert(0, Block())\n"
        f"sys.argv = ['mlx-aimv2', 'embed', {str(photos)!r}, '--model', {str(pair)!r}]\n"
        "from mlx_aimv2.cli.app import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", blocker], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("mlx-aimv2: error: MLX")
    if sys.platform == "linux":
        assert "pip install 'mlx-aimv2[cpu]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_process_runs_many_verbs_and_keeps_nothing_of_them(capsys, pair, photos):
    before = warnings.showwarning, dict(os.environ), [signal.getsignal(one) for one in interrupts.ENDING]
    for _ in range(2):
        assert app.run(["embed", str(photos), "--model", str(pair), "--device", "cpu"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3
        assert app.run(["--debug", "info", "no/such"]) == 1
        assert "Traceback" in capsys.readouterr().err
        assert app.run(["info", "no/such"]) == 1
        assert "Traceback" not in capsys.readouterr().err
        assert app.run(["embed", "--txt"]) == 2
        assert app.run(["--version"]) == 0
        capsys.readouterr()
    assert before == (
        warnings.showwarning,
        dict(os.environ),
        [signal.getsignal(one) for one in interrupts.ENDING],
    )
    assert (guard.RUNNING.options, guard.RUNNING.debug, LIVE.bars) == (frozenset(), False, None)
