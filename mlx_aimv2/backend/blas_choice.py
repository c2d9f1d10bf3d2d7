"""Which BLAS is the fastest on this machine: measured once, and kept in the user's cache folder."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

TIMEOUT_S = 20
LINKER_CACHE = Path("/etc/ld.so.cache")
# OpenBLAS falls back to slow kernels on a processor that is newer than itself: instructions that a processor must
# have, and the name of kernels that use them
KERNELS = (({"avx512f", "avx512dq", "avx512bw", "avx512vl"}, "SkylakeX"), ({"avx2", "fma"}, "Haswell"))


@dataclass(frozen=True)
class Candidate:
    """A library, and environment variables to load it with."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)


def fastest_first(names: Sequence[str]) -> list[Candidate]:
    """The installed libraries among ``names``, the fastest first.

    With a single one, or where they cannot be measured, the order is that of ``names``.
    """
    vendor, flags = _processor()
    candidates = _variants([name for name in names if _is_installed(name)], flags)
    if len(candidates) < 2 or getattr(sys, "frozen", False):  # a frozen program has no interpreter to run
        return candidates
    key = repr(
        (
            vendor,
            sorted(flags),
            len(os.sched_getaffinity(0)),
            candidates,
            [_version(x.name) for x in candidates],
        )
    )
    cache = _cache_file()
    rates = _stored(cache, key)
    if rates is None:
        rates = _measure(candidates)
        _store(cache, key, rates)
    ranked = sorted(zip(rates, candidates, strict=True), key=lambda pair: -pair[0])
    return [candidate for rate, candidate in ranked if rate or not any(rates)]


def _variants(names: Sequence[str], flags: set[str]) -> list[Candidate]:
    """``names`` as candidates; OpenBLAS also with named kernels, unless the user has named some."""
    candidates = []
    for name in names:
        candidates.append(Candidate(name))
        if "openblas" in name and "OPENBLAS_CORETYPE" not in os.environ:
            kernels = next((kernels for needed, kernels in KERNELS if needed <= flags), None)
            candidates += [Candidate(name, {"OPENBLAS_CORETYPE": kernels})] if kernels else []
    return candidates


def _processor() -> tuple[str, set[str]]:
    """The processor's name, and the instructions it has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine(), set()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    return fields.get("model name", platform.machine()), set(fields.get("flags", "").split())


def _is_installed(name: str) -> bool:
    """Whether the file ``name`` exists, or the linker may find a library of this name."""
    if Path(name).is_absolute():
        return True
    if any(
        (Path(folder) / name).is_file()
        for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":")
        if folder
    ):
        return True
    try:
        return name.encode() + b"\0" in LINKER_CACHE.read_bytes()
    except OSError:
        return True


def _version(name: str) -> float:
    """A number that changes when the library changes."""
    try:
        return (Path(name) if Path(name).is_absolute() else LINKER_CACHE).stat().st_mtime
    except OSError:
        return 0


def _measure(candidates: Sequence[Candidate]) -> list[float]:
    """The rate of each candidate in GFLOP/s; 0 for what cannot be loaded, and for all if nothing can be measured."""
    script = Path(__file__).with_name("blas_speed.py")
    argument = json.dumps([(candidate.name, candidate.environment) for candidate in candidates])
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(script), argument],
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        rates: list[float] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return [0.0] * len(candidates)
    return rates


def _cache_file() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(folder) / "mlx-aimv2" / "blas.json"


def _stored(path: Path, key: str) -> list[float] | None:
    """The rates that were stored for the same machine and libraries."""
    try:
        data = json.loads(path.read_bytes())
        return [float(rate) for rate in data["rates"]] if data["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _store(path: Path, key: str, rates: Sequence[float]) -> None:
    """Keep the rates; without a place to keep them, they are measured again the next time."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"key": key, "rates": rates}))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
