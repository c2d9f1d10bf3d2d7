import os
import subprocess
import sys
import textwrap

import mlx.core as mx
import pytest

from mlx_aimv2.backend import device as backend
from mlx_aimv2.errors import InputError

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


@pytest.mark.parametrize(("name", "dtype"), [(name, getattr(mx, name)) for name in backend.DTYPES])
def test_a_dtype_is_taken_by_name(name, dtype):
    assert backend.compute_dtype(name) == dtype


@pytest.mark.parametrize("name", [None, "auto"])
@pytest.mark.parametrize(("cpu", "dtype"), [(True, mx.float32), (False, mx.float16)])
def test_auto_suits_the_device(monkeypatch, name, cpu, dtype):
    monkeypatch.setattr(backend, "on_cpu", lambda: cpu)
    assert backend.compute_dtype(name) == dtype


@pytest.mark.parametrize("name", ["float64", "fp16", "", "Float32"])
def test_another_dtype_is_refused(name):
    with pytest.raises(InputError, match=f"dtype '{name}' is not one of auto, float32, float16, bfloat16$"):
        backend.compute_dtype(name)


@pytest.mark.parametrize("name", ["cuda", "CPU", ""])
def test_another_device_is_refused(name):
    with pytest.raises(InputError, match=f"device '{name}' is neither cpu nor gpu"):
        backend.use_device(name)


def test_a_gpu_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(backend, "gpu_available", lambda: False)
    with pytest.raises(InputError, match="MLX finds no GPU on this machine: use --device cpu"):
        backend.use_device("gpu")


def test_the_cpu_can_always_be_used():
    before = mx.default_device()
    try:
        backend.use_device("cpu")
        assert backend.on_cpu()
    finally:
        mx.set_default_device(before)


def test_a_slow_blas_is_no_problem_on_a_gpu(monkeypatch):
    monkeypatch.setattr(backend, "load_blas", lambda: backend.Blas(problem="slow"))
    monkeypatch.setattr(backend, "on_cpu", lambda: False)
    assert backend.blas_problem() is None
    monkeypatch.setattr(backend, "on_cpu", lambda: True)
    assert backend.blas_problem() == "slow"


@pytest.mark.parametrize(
    ("blas", "text"),
    [
        (backend.Blas("libopenblas.so.0"), "libopenblas.so.0"),
        (backend.Blas(problem="none found"), "none found"),
        (backend.Blas(), "the one MLX was built with"),
    ],
)
def test_a_blas_in_words(blas, text):
    assert str(blas) == text


def test_importing_the_package_imports_nothing_heavy():
    heavy = run("""
        import sys, mlx_aimv2
        for name in ("mlx", "mlx.core", "PIL", "typer", "torch", "numpy", "tokenizers", "huggingface_hub"):
            if name in sys.modules:
                print(name)
    """)
    assert heavy == []


def test_configs_need_no_mlx():
    assert run("""
        import sys
        from mlx_aimv2 import Aimv2Config
        print("mlx.core" in sys.modules)
    """) == ["False"]


@on_linux
@pytest.mark.parametrize("word", ["off", "OFF", "0", "none"])
def test_blas_can_be_turned_off(word):
    assert run(
        """
        from mlx_aimv2.backend.device import load_blas
        print(load_blas())
        print("openblas" in open("/proc/self/maps").read())
        """,
        MLX_AIMV2_BLAS=word,
    ) == ["the one MLX was built with", "False"]


@on_linux
def test_a_library_can_be_named():
    found = backend.load_blas().library
    if found is None:
        pytest.skip("no fast BLAS on this machine")
    code = "from mlx_aimv2.backend.device import load_blas; print(load_blas().library, load_blas().problem)"
    assert run(code, MLX_AIMV2_BLAS=found) == [f"{found} None"]


@on_linux
@pytest.mark.parametrize("name", ["libnothing.so", "libc.so.6"], ids=["missing", "no-blas"])
def test_a_wrong_library_is_a_problem_and_no_error(name):
    code = "from mlx_aimv2.backend.device import load_blas; print(load_blas().library, load_blas().problem)"
    expected = f"None MLX_AIMV2_BLAS={name} is no BLAS library that can be loaded"
    assert run(code, MLX_AIMV2_BLAS=name) == [expected]


@on_linux
def test_mlx_imported_first_is_too_late():
    lines = run("""
        import mlx.core
        from mlx_aimv2.backend import device as backend
        print(backend.load_blas().problem)
    """)
    assert lines == ["mlx was imported before mlx_aimv2, too late for a fast BLAS: import mlx_aimv2 first"]


@on_linux
def test_mlx_imported_first_is_no_problem_with_a_preloaded_blas(monkeypatch):
    monkeypatch.setattr(backend, "_already_linked", lambda: True)
    monkeypatch.setenv("MLX_AIMV2_BLAS", "")
    assert backend.load_blas.__wrapped__() == backend.Blas()


@on_linux
def test_no_blas_at_all_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "mlx.core")
    monkeypatch.setenv("MLX_AIMV2_BLAS", "")
    monkeypatch.setattr(backend, "_load", lambda name: False)
    problem = backend.load_blas.__wrapped__().problem
    assert "no fast BLAS was found" in problem and "apt-get install libopenblas0-pthread" in problem


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(backend.sys, "platform", "darwin")
    assert backend.load_blas.__wrapped__() == backend.Blas()


def test_a_library_in_the_environments_own_folder_comes_first(tmp_path, monkeypatch):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libopenblas.so").touch()
    monkeypatch.setattr(backend.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(backend.site, "ENABLE_USER_SITE", False)
    names = backend._candidates()
    assert names[0] == str(tmp_path / "lib" / "libopenblas.so")
    assert names[1:] == [*backend.OPENBLAS, *backend.BLIS, *backend.MKL]


BLOCKED = """
    import sys
    class Block:
        def find_spec(self, name, path=None, target=None):
            if name == "mlx.core":
                raise ImportError("libmlx.so: cannot open shared object file")
    sys.meta_path.insert(0, Block())
    sys.platform = "{platform}"
    import mlx_aimv2
    from mlx_aimv2.errors import BackendError
    try:
        mlx_aimv2.load
    except BackendError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("platform", "message"),
    [
        ("linux", "MLX has no backend on this machine: pip install 'mlx-aimv2[cpu]' for a CPU,"),
        ("darwin", "MLX has no backend on this machine: pip install mlx"),
    ],
)
def test_without_mlx_the_public_names_say_what_to_install(platform, message):
    (line,) = run(BLOCKED.format(platform=platform))
    assert line.startswith("MLX cannot be imported (libmlx.so: cannot open shared object file): ")
    assert message in line


def test_require_mlx_is_content_where_mlx_is():
    assert backend.require_mlx() is None


def test_without_cache_freed_memory_is_given_back():
    limit = mx.set_cache_limit(2**20)
    try:
        with pytest.raises(ZeroDivisionError), backend.without_cache():
            mx.clear_cache()
            mx.eval(mx.ones(1000) + 1)
            assert mx.get_cache_memory() == 0
            raise ZeroDivisionError
        assert mx.set_cache_limit(limit) == 2**20
    finally:
        mx.set_cache_limit(limit)
