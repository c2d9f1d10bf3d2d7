"""Devices and dtypes, and what happens where MLX cannot be imported."""

import mlx.core as mx
import pytest

from mlx_aimv2.backend import device
from mlx_aimv2.errors import InputError


@pytest.mark.parametrize(("name", "dtype"), [(name, getattr(mx, name)) for name in device.DTYPES])
def test_a_dtype_is_taken_by_name(name, dtype):
    assert device.compute_dtype(name) == dtype


@pytest.mark.parametrize("name", [None, "auto"])
@pytest.mark.parametrize(("cpu", "dtype"), [(True, mx.float32), (False, mx.float16)])
def test_auto_suits_the_device(monkeypatch, name, cpu, dtype):
    monkeypatch.setattr(device, "on_cpu", lambda: cpu)
    assert device.compute_dtype(name) == dtype


@pytest.mark.parametrize("name", ["float64", "fp16", "", "Float32"])
def test_another_dtype_is_refused(name):
    with pytest.raises(InputError, match=f"dtype '{name}' is not one of auto, float32, float16, bfloat16$"):
        device.compute_dtype(name)


@pytest.mark.parametrize("name", ["cuda", "CPU", ""])
def test_another_device_is_refused(name):
    with pytest.raises(InputError, match=f"device '{name}' is neither cpu nor gpu"):
        device.use_device(name)


def test_a_gpu_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(device, "gpu_available", lambda: False)
    with pytest.raises(InputError, match="MLX finds no GPU on this machine: use --device cpu"):
        device.use_device("gpu")


def test_the_cpu_can_always_be_used():
    before = mx.default_device()
    try:
        device.use_device("cpu")
        assert device.on_cpu()
    finally:
        mx.set_default_device(before)


def test_require_mlx_is_content_where_mlx_is():
    assert device.require_mlx() is None


def test_without_cache_freed_memory_is_given_back():
    limit = mx.set_cache_limit(2**20)
    try:
        with pytest.raises(ZeroDivisionError), device.without_cache():
            mx.clear_cache()
            mx.eval(mx.ones(1000) + 1)
            assert mx.get_cache_memory() == 0
            raise ZeroDivisionError
        assert mx.set_cache_limit(limit) == 2**20
    finally:
        mx.set_cache_limit(limit)
