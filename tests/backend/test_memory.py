"""The memory of a GPU, and the errors that mean a lack of it."""

import mlx.core as mx
import pytest

from mlx_aimv2.backend import memory


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError(
            "[metal::malloc] Attempting to allocate 48736917632 bytes which is greater than the maximum allowed"
            " buffer size of 30150672384 bytes."
        ),
        RuntimeError("[metal::malloc] Resource limit (499000) exceeded."),
        RuntimeError(
            "[METAL] Command buffer execution failed: Insufficient Memory"
            " (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
        ),
        RuntimeError("[malloc_or_wait] Unable to allocate 64 bytes."),
        RuntimeError("cudaMallocManaged failed: out of memory."),
        RuntimeError("cublasCreate(&handle) failed: CUBLAS_STATUS_ALLOC_FAILED"),
        MemoryError("std::bad_alloc"),
    ],
)
def test_a_lack_of_memory_is_recognised(error):
    assert memory.is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[matmul] Last dimension of first input with shape (2,3) must match"),
        RuntimeError("cudaMallocManaged failed: an illegal memory access was encountered."),
        ValueError("out of memory"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_are_none(error):
    assert not memory.is_out_of_memory(error)


def test_a_cpu_sets_no_limit():
    assert memory.gpu_bytes() is None


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"max_recommended_working_set_size": 5000, "memory_size": 8000}, 5000),
        ({"free_memory": 3000, "total_memory": 8000}, 3000 + 700 + 20),  # this process holds the 720
        ({"device_name": "unknown"}, None),
    ],
)
def test_the_memory_of_a_gpu_is_what_arrays_may_use(monkeypatch, info, expected):
    monkeypatch.setattr(memory, "on_cpu", lambda: False)
    monkeypatch.setattr(mx, "device_info", lambda: info)
    monkeypatch.setattr(mx, "get_active_memory", lambda: 700)
    monkeypatch.setattr(mx, "get_cache_memory", lambda: 20)
    assert memory.gpu_bytes() == expected
