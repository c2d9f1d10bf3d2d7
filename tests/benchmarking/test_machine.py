"""The machine of this process."""

from __future__ import annotations

import dataclasses
import json

import mlx.core as mx
import pytest

import mlx_aimv2
from mlx_aimv2.benchmarking import machine
from mlx_aimv2.benchmarking.machine import describe_machine


def test_this_machine_has_a_name_for_everything():
    described = describe_machine()
    assert described.mlx_aimv2 == mlx_aimv2.__version__
    assert described.mlx == mx.__version__
    assert described.device in ("cpu", "gpu")
    assert described.dtype == ("float32" if described.device == "cpu" else "float16")
    assert described.cores >= 1
    assert described.memory_bytes is None or 2**28 < described.memory_bytes < 2**45
    assert described.blas and "Blas(" not in described.blas
    assert described.cpu and described.system
    assert json.loads(json.dumps(described.to_dict())) == described.to_dict()


def test_the_gpu_is_named_where_it_computes(monkeypatch):
    facts = {"device_name": "Some GPU", "total_memory": 8 << 30}
    monkeypatch.setattr(machine, "gpu_available", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda device: facts)
    described = describe_machine()
    assert (described.gpu, described.gpu_memory_bytes) == ("Some GPU", 8 << 30)
    assert dataclasses.replace(described, cpu="Some CPU", device="cpu").device_name == "Some CPU"
    assert dataclasses.replace(described, cpu="Some CPU", device="gpu").device_name == "Some GPU"


def test_a_build_without_a_device_says_unknown(monkeypatch):
    def fail(device):
        raise RuntimeError("no such device")

    monkeypatch.setattr(mx, "device_info", fail)
    monkeypatch.setattr("platform.processor", lambda: "")
    assert describe_machine().cpu == "unknown"


@pytest.mark.parametrize("extra", ["heif", "parquet"])
def test_a_missing_extra_is_told(monkeypatch, extra):
    monkeypatch.setitem(machine.EXTRAS, extra, "a_module_nobody_has")
    extras = dict(describe_machine().extras)
    assert extras.pop(extra) is False
    assert all(extras.values())


@pytest.mark.parametrize(
    ("platform", "expected"), [("darwin", "macOS 15.1"), ("linux", "Some Linux 12"), ("win32", "Linux 6.1")]
)
def test_the_system_has_its_own_name(monkeypatch, platform, expected):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr("platform.mac_ver", lambda: ("15.1", (), "arm64"))
    release = {} if platform == "win32" else {"PRETTY_NAME": "Some Linux 12"}
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: release)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.release", lambda: "6.1")
    assert machine._system() == expected
