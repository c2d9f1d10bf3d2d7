"""Loading a BLAS, and what `import mlx_aimv2` loads besides."""

import os
import subprocess
import sys
import textwrap

import pytest

from mlx_aimv2.backend import blas

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a BLAS is loaded on Linux only")


def run(code, **environment):
    """What a fresh Python prints, one item per line."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_PRELOAD": "", "MLX_AIMV2_BLAS": "", **environment},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


@pytest.fixture
def before_mlx(monkeypatch):
    """`load_blas` as in a process that has not imported MLX yet, with the variable that the test gives."""
    loaded = []
    monkeypatch.delitem(sys.modules, "mlx.core")
    monkeypatch.setattr(blas.ctypes, "CDLL", lambda name, mode: loaded.append(name) or os)

    def load(choice=""):
        monkeypatch.setenv(blas.BLAS_VARIABLE, choice)
        return blas.load_blas.__wrapped__(), loaded

    return load


def test_a_slow_blas_is_no_problem_on_a_gpu(monkeypatch):
    monkeypatch.setattr(blas, "load_blas", lambda: blas.Blas(problem="slow"))
    monkeypatch.setattr(blas, "on_cpu", lambda: False)
    assert blas.blas_problem() is None
    monkeypatch.setattr(blas, "on_cpu", lambda: True)
    assert blas.blas_problem() == "slow"


@pytest.mark.parametrize(
    ("used", "text"),
    [
        (blas.Blas("libopenblas.so.0"), "libopenblas.so.0"),
        (blas.Blas(problem="none found"), "none found"),
        (blas.Blas(), "the one MLX was built with"),
    ],
)
def test_a_blas_in_words(used, text):
    assert str(used) == text


def test_importing_the_package_imports_nothing_heavy_and_configs_need_no_mlx():
    assert run("""
        import sys, mlx_aimv2
        for name in ("mlx", "mlx.core", "PIL", "typer", "torch", "numpy", "tokenizers", "huggingface_hub"):
            if name in sys.modules:
                print(name)
        from mlx_aimv2 import Aimv2Config
        print("mlx.core" in sys.modules)
    """) == ["False"]


@on_linux
@pytest.mark.parametrize("choice", ["off", "OFF", "0", "none"])
def test_blas_can_be_turned_off(before_mlx, choice):
    assert before_mlx(choice) == (blas.Blas(), [])


@on_linux
def test_a_process_without_a_blas_has_loaded_none():
    code = """
        from mlx_aimv2.backend.blas import load_blas
        print(load_blas())
        print("openblas" in open("/proc/self/maps").read())
    """
    assert run(code, MLX_AIMV2_BLAS="off") == ["the one MLX was built with", "False"]


@on_linux
def test_a_library_can_be_named():
    library = blas.load_blas().library
    if library is None:
        pytest.skip("no fast BLAS on this machine")
    code = "from mlx_aimv2.backend.blas import load_blas; print(load_blas().library, load_blas().problem)"
    assert run(code, MLX_AIMV2_BLAS=library) == [f"{library} None"]


@on_linux
@pytest.mark.parametrize("name", ["libnothing.so", "libc.so.6"], ids=["missing", "no-blas"])
def test_a_wrong_library_is_a_problem_and_no_error(monkeypatch, name):
    monkeypatch.delitem(sys.modules, "mlx.core")
    monkeypatch.setenv(blas.BLAS_VARIABLE, name)
    problem = f"MLX_AIMV2_BLAS={name} is no BLAS library that can be loaded"
    assert blas.load_blas.__wrapped__() == blas.Blas(problem=problem)


@on_linux
def test_mlx_imported_first_is_too_late():
    lines = run("""
        import mlx.core
        from mlx_aimv2.backend.blas import load_blas
        print(load_blas().problem)
    """)
    assert lines == ["mlx was imported before mlx_aimv2, too late for a fast BLAS: import mlx_aimv2 first"]


@on_linux
def test_mlx_imported_first_is_no_problem_with_a_preloaded_blas(monkeypatch):
    monkeypatch.setattr(blas, "_already_linked", lambda: True)
    monkeypatch.setenv(blas.BLAS_VARIABLE, "")
    assert blas.load_blas.__wrapped__() == blas.Blas()


@on_linux
def test_no_blas_at_all_says_what_to_install(before_mlx, monkeypatch):
    monkeypatch.setattr(blas, "fastest_first", lambda names: [])
    assert before_mlx() == (blas.Blas(problem=blas.NO_BLAS), [])
    assert "no fast BLAS was found" in blas.NO_BLAS
    assert "apt-get install libopenblas0-pthread" in blas.NO_BLAS


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(blas.sys, "platform", "darwin")
    assert blas.load_blas.__wrapped__() == blas.Blas()


def test_a_library_in_the_environments_own_folder_comes_first(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libopenblas.so").touch()
    monkeypatch.setattr(blas.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(blas.site, "ENABLE_USER_SITE", False)
    names = list(blas._candidates())
    assert names[0] == str(tmp_path / "lib" / "libopenblas.so")
    assert names[1:] == [*blas.OPENBLAS, *blas.BLIS, *blas.MKL]
