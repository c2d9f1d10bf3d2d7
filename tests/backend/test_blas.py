"""Loading a BLAS, and what `import mlx_aimv2` loads besides."""

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

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


class Library:
    """A BLAS with a number of threads."""

    def __init__(self, threads):
        self.threads = threads

    def openblas_get_num_threads(self):
        return self.threads

    def openblas_set_num_threads(self, threads):
        self.threads = threads


@pytest.mark.parametrize(
    ("threads", "streams", "each"),
    [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 4, 1), (5, 4, 1), (6, 3, 2), (7, 3, 2), (8, 4, 2), (64, 4, 16)],
)
def test_the_threads_are_divided_so_that_few_are_left_over(monkeypatch, threads, streams, each):
    library = Library(threads)
    monkeypatch.setattr(blas, "load_blas", lambda: blas.Blas("libopenblas.so.0"))
    monkeypatch.setattr(blas.ctypes, "CDLL", lambda name: library)
    assert blas._division.__wrapped__().streams == streams
    assert library.threads == each


@pytest.mark.parametrize("used", [blas.Blas(), blas.Blas("libother.so")], ids=["none", "unknown"])
def test_threads_of_another_blas_are_left_alone(monkeypatch, used):
    monkeypatch.setattr(blas, "load_blas", lambda: used)
    monkeypatch.setattr(blas.ctypes, "CDLL", lambda name: object())
    assert blas._division.__wrapped__().streams == 1


def test_threads_at_once_divide_once(monkeypatch):
    library = Library(8)
    monkeypatch.setattr(blas, "load_blas", lambda: blas.Blas("libopenblas.so.0"))
    monkeypatch.setattr(blas.ctypes, "CDLL", lambda name: library)
    blas._division.cache_clear()
    try:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: blas.divide_threads(), range(32))) == {4}
    finally:
        blas._division.cache_clear()
    assert library.threads == 2


@on_linux
def test_variables_are_set_while_a_library_is_loaded(monkeypatch):
    seen = []
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    monkeypatch.setattr(
        blas.ctypes, "CDLL", lambda name, mode: seen.append(os.environ["OPENBLAS_CORETYPE"]) or os
    )
    assert not blas._load(blas.Candidate("any", {"OPENBLAS_CORETYPE": "Haswell"}))
    assert seen == ["Haswell"] and "OPENBLAS_CORETYPE" not in os.environ


@on_linux
def test_the_named_library_is_the_only_one_that_is_tried(before_mlx, monkeypatch):
    monkeypatch.setattr(blas, "fastest_first", lambda names: [blas.Candidate(name) for name in names])
    assert before_mlx("/nowhere/libopenblas.so")[1] == ["/nowhere/libopenblas.so"]
