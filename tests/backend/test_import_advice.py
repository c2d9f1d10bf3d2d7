"""Why MLX cannot be imported: the reason is quoted, and every kind has its own advice."""

import importlib
import subprocess
import sys
import textwrap

import pytest

from mlx_aimv2.backend.device import require_mlx
from mlx_aimv2.backend.import_advice import import_problem
from mlx_aimv2.errors import BackendError

KINDS = {
    "No module named 'mlx'": "it is not installed for Python",
    "No module named 'mlx.core'": "without its core, or for another Python",
    "libmlx.so: cannot open shared object file: No such file or directory": "MLX has no backend on this machine",
    "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.35' not found (required by libmlx.so)": "too old for it",
    "/lib/libstdc++.so.6: version `GLIBCXX_3.4.30' not found (required by libmlx.so)": "update libstdc++",
    "libcuda.so.1: cannot open shared object file: No such file or directory": "driver of the NVIDIA GPU is missing",
    "libcublasLt.so.12: cannot open shared object file: No such file or directory": "a library of CUDA is missing",
    "libnccl.so.2: cannot open shared object file: No such file or directory": "a library of CUDA is missing",
    "libcudart.so.13: cannot open shared object file: No such file or directory": "a library of CUDA is missing",
    "libopenblas.so.0: cannot open shared object file: No such file or directory": "apt-get install libopenblas0",
    "libblas.so.3: cannot open shared object file: No such file or directory": "apt-get install libopenblas0",
    "core.so: wrong ELF class: ELFCLASS32": "built for another machine than",
    "dlopen(core.so): an incompatible architecture (have 'arm64')": "built for another machine than",
    "core.so: undefined symbol: _ZN3mlx4core5arrayC1Ev": "its parts are of different versions",
    "core.so: undefined symbol: PyUnicode_Foo": "built for another Python than",
    "dlopen: Symbol not found: _OBJC (built for macOS 15.0)": "update macOS",
    "core.so: failed to map segment from shared object: Operation not permitted": "may not be read or run",
    "something never seen": "pip install --force-reinstall",
}


@pytest.mark.parametrize("reason", KINDS)
def test_the_reason_is_quoted_with_its_advice(reason):
    message = import_problem(ImportError(reason))
    assert message.startswith(f"MLX cannot be imported ({reason}): ") and "\n" not in message
    assert KINDS[reason] in message.removeprefix(f"MLX cannot be imported ({reason}): ")


@pytest.mark.parametrize(("system", "advice"), [("linux", "'mlx-aimv2[cpu]'"), ("darwin", "pip install mlx")])
def test_what_to_install_depends_on_the_system(monkeypatch, system, advice):
    monkeypatch.setattr(sys, "platform", system)
    assert import_problem(ImportError("No module named 'mlx'")).count(advice) == 1


def test_a_message_of_several_lines_becomes_one():
    assert "(a b c): " in import_problem(ImportError("a\n  b\tc"))


def test_it_is_raised_where_mlx_is_asked_for(monkeypatch):
    def fail(name):
        raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.delitem(sys.modules, "mlx.core")
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(
        BackendError, match=r"\(libcuda\.so\.1: .*\): the driver of the NVIDIA GPU is missing"
    ):
        require_mlx()


def test_a_file_that_hides_mlx_is_named(tmp_path):
    (tmp_path / "mlx.py").write_text("")
    code = (
        "import mlx_aimv2\ntry: mlx_aimv2.load\nexcept mlx_aimv2.errors.BackendError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert f"a file or module called mlx hides it: rename that, it is {tmp_path / 'mlx.py'}" in done.stdout


BLOCKED = """
    import sys
    class Block:
        def find_spec(self, name, path=None, target=None):
            if name == "mlx.core":
                raise ImportError("libmlx.so: cannot open shared object file")
    sys.meta_path.insert(0, Block())
    import mlx_aimv2
    from mlx_aimv2.errors import BackendError
    for platform in ("linux", "darwin"):
        sys.platform = platform
        try:
            mlx_aimv2.load
        except BackendError as error:
            print(error)
"""


def test_without_mlx_the_public_names_say_what_to_install():
    code = textwrap.dedent(BLOCKED)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    reason = "MLX cannot be imported (libmlx.so: cannot open shared object file): "
    on_linux, on_mac = done.stdout.splitlines()
    missing = f"{reason}MLX has no backend on this machine: pip install"
    assert on_linux.startswith(f"{missing} 'mlx-aimv2[cpu]' for a CPU,") and on_mac == f"{missing} mlx"
