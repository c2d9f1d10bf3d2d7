"""The memory of the device: how much arrays may use, and which errors mean that it was not enough."""

from __future__ import annotations

from .device import on_cpu

# Parts of MLX's messages in lower case: of its allocators, of Metal, of CUDA and its libraries.
OUT_OF_MEMORY = (
    "unable to allocate",
    "attempting to allocate",
    "[metal::malloc]",
    "out of memory",
    "outofmemory",
    "insufficient memory",
    "alloc_failed",
    "bad_alloc",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of MLX means that the memory was not enough."""
    if isinstance(error, MemoryError):  # `std::bad_alloc`
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in message for part in OUT_OF_MEMORY)


def gpu_bytes() -> int | None:
    """The bytes that arrays may use on the GPU in all; None on a CPU, or if MLX does not tell."""
    if on_cpu():
        return None
    import mlx.core as mx

    info = mx.device_info()
    if "max_recommended_working_set_size" in info:  # Metal
        return int(info["max_recommended_working_set_size"])
    if "free_memory" in info:  # CUDA; other processes use the rest
        return int(info["free_memory"]) + mx.get_active_memory() + mx.get_cache_memory()
    return None
