"""The machine that computes: hardware, system, versions."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from .._version import __version__
from ..backend.blas import load_blas
from ..backend.device import compute_dtype, gpu_available, on_cpu
from ..checkpoints.matching import dtype_name

EXTRAS = {"heif": "pillow_heif", "parquet": "pyarrow"}
LIBRARIES = ("mlx", "numpy", "pillow")
GPU_MEMORY = ("memory_size", "total_memory")  # what Metal and CUDA call it


@dataclass(frozen=True)
class Machine:
    """Hardware, system and versions.

    Attributes:
        mlx_aimv2: version of this package.
        mlx: version.
        numpy: version.
        pillow: version.
        python: version.
        platform: system, kernel and architecture, as Python names them.
        system: name and version of the system, such as `macOS 15.1`.
        cpu: name of the processor.
        cores: that this process may use.
        memory_bytes: of the machine; None if unknown.
        gpu: name of the GPU that MLX can use; None for none.
        gpu_memory_bytes: of the GPU; None if unknown.
        device: where MLX computes now, `cpu` or `gpu`.
        blas: the library for matrix products on the CPU.
        dtype: what MLX computes in by default there.
        extras: whether each optional package is installed.
    """

    mlx_aimv2: str
    mlx: str
    numpy: str
    pillow: str
    python: str
    platform: str
    system: str
    cpu: str
    cores: int
    memory_bytes: int | None
    gpu: str | None
    gpu_memory_bytes: int | None
    device: str
    blas: str
    dtype: str
    extras: Mapping[str, bool]

    @property
    def device_name(self) -> str:
        """The name of the processor that computes."""
        return self.gpu if self.gpu and self.device == "gpu" else self.cpu

    @property
    def blas_name(self) -> str:
        """The file name of the BLAS library, or why there is none."""
        return self.blas.rpartition("/")[2] if self.blas.startswith("/") else self.blas

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return dataclasses.asdict(self)


def describe_machine() -> Machine:
    """The machine of this process, and the device that MLX computes on now."""
    gpu = _device_info(mx.DeviceType.gpu) if gpu_available() else {}
    memory = next((int(gpu[name]) for name in GPU_MEMORY if name in gpu), None)
    return Machine(
        mlx_aimv2=__version__,
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
        python=platform.python_version(),
        platform=platform.platform(),
        system=_system(),
        cpu=str(_device_info(mx.DeviceType.cpu).get("device_name") or platform.processor() or "unknown"),
        cores=_cores(),
        memory_bytes=_memory_bytes(),
        gpu=str(gpu.get("device_name") or "unknown") if gpu_available() else None,
        gpu_memory_bytes=memory,
        device="cpu" if on_cpu() else "gpu",
        blas=str(load_blas()),
        dtype=dtype_name(compute_dtype(None)),
        extras={extra: importlib.util.find_spec(module) is not None for extra, module in EXTRAS.items()},
    )


def _device_info(kind: mx.DeviceType) -> Mapping[str, str | int]:
    try:
        return mx.device_info(mx.Device(kind))
    except (RuntimeError, ValueError):  # this build of MLX has no such device
        return {}


def _system() -> str:
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    with contextlib.suppress(OSError, KeyError):
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    return f"{platform.system()} {platform.release()}"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # containers and `taskset` give a process some of the cores
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int | None:
    if sys.platform == "win32":
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
