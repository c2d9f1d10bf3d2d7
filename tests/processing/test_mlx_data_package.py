"""The import of mlx-data: lazy, and advice where there is no package."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from helpers.programs import run_program

from mlx_aimv2.errors import InputError
from mlx_aimv2.processing import mlx_data_package as module
from mlx_aimv2.processing.decode import DecodeOptions


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """mlx-data cannot be imported."""
    monkeypatch.setitem(sys.modules, "mlx.data", None)
    module._imported.cache_clear()
    yield
    module._imported.cache_clear()


@pytest.mark.parametrize(
    ("system", "machine", "advice"),
    [
        ("linux", "x86_64", r"needs the package mlx-data \(.+\): pip install mlx-data$"),
        ("darwin", "arm64", r"needs the package mlx-data \(.+\): pip install mlx-data$"),
        ("linux", "aarch64", r"which exists for Linux on x86-64 and macOS on Apple silicon with Python up to 3\.13,"
                             r" not for linux aarch64 with Python [\d.]+: use 'exact', which gives the same pixels$"),
    ],
)  # fmt: skip
def test_the_message_says_what_to_do(
    missing: None, monkeypatch: pytest.MonkeyPatch, system: str, machine: str, advice: str
) -> None:
    monkeypatch.setattr(module.sys, "platform", system)
    monkeypatch.setattr(module.platform, "machine", lambda: machine)
    monkeypatch.setattr(module, "NEWEST_PYTHON", sys.version_info[:2])
    with pytest.raises(InputError, match=r"^decode='native' needs the package mlx-data") as caught:
        DecodeOptions(decode="native")
    assert caught.match(advice)


def test_a_newer_python_has_no_package(missing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEWEST_PYTHON", (3, 9))
    with pytest.raises(InputError, match=r"not for .* with Python 3"):
        DecodeOptions(decode="native")


@pytest.mark.parametrize("decode", ["exact", "fast"])
def test_nothing_imports_it_unless_it_is_used(decode: str) -> None:
    program = """
import sys, mlx_aimv2
from mlx_aimv2.cli import app
from mlx_aimv2 import Embedder, ZeroShotClassifier, evaluate_labels, finetune, DecodeOptions
DecodeOptions(decode=sys.argv[1])
print(*[name for name in sys.modules if name.startswith("mlx.data")])
"""
    assert run_program(program, decode).stdout == "\n"
