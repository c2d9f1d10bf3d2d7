"""Which BLAS is the fastest on this machine: measured once, and kept in the user's cache folder."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

TIMEOUT_S = 60
LINKER_CACHE = Path("/etc/ld.so.cache")
# OpenBLAS falls back to slow kernels on a processor that is newer than itself: instructions that a processor must
# have, and the name of kernels that use them
CORETYPE = "OPENBLAS_CORETYPE"
VARIABLES = (CORETYPE, "LD_LIBRARY_PATH", "LD_PRELOAD")  # that change what is loaded, or its rate
KERNELS = (({"avx512f", "avx512dq", "avx512bw", "avx512vl"}, "SkylakeX"), ({"avx2", "fma"}, "Haswell"))


@dataclass(frozen=True)
class Candidate:
    """A library, and environment variables to load it with."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)


def fastest_first(names: Sequence[str]) -> list[Candidate]:
    """The libraries ``names`` that work, the fastest first.

    With a single one, or where they cannot be measured, all of them in the order of ``names``.
    """
    vendor, flags = _processor()
    candidates = _variants(names, flags)
    if len(candidates) < 2 or getattr(sys, "frozen", False):  # a frozen program has no interpreter to run
        return candidates
    variables = [os.environ.get(name) for name in VARIABLES]
    versions = [_version(name) for name in names]
    key = repr((vendor, sorted(flags), len(os.sched_getaffinity(0)), variables, candidates, versions))
    cache = _cache_file(key)
    rates = _stored(cache, key, len(candidates))
    if rates is None:
        rates = _measure(candidates)
        if rates is None:
            return candidates
        if any(rates):
            rates = _store(cache, key, rates)
    ranked = sorted(zip(rates, candidates, strict=True), key=lambda pair: -pair[0])
    return [candidate for rate, candidate in ranked if rate]


def _variants(names: Sequence[str], flags: set[str]) -> list[Candidate]:
    """``names`` as candidates; OpenBLAS also with named kernels, unless the user has named some."""
    kernels = next((kernels for needed, kernels in KERNELS if needed <= flags), None)
    candidates = []
    for name in names:
        if "openblas" in name and kernels and CORETYPE not in os.environ:
            candidates.append(Candidate(name, {CORETYPE: kernels}))
        candidates.append(Candidate(name))
    return candidates


def _processor() -> tuple[str, set[str]]:
    """The processor's name, and the instructions it has."""
    machine = os.uname().machine
    try:
        with Path("/proc/cpuinfo").open() as file:  # only the first of perhaps hundreds of processors
            lines = list(itertools.takewhile(str.strip, file))
    except OSError:
        return machine, set()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    return fields.get("model name", machine), set(fields.get("flags", "").split())


def is_installed(name: str) -> bool:
    """Whether ``name`` is a path, or a name that the linker may find."""
    if "/" in name:
        return True
    if any(
        (Path(folder) / name).is_file()
        for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":")
        if folder
    ):
        return True
    linked = _linker_cache()
    return linked is None or name.encode() + b"\0" in linked


@functools.lru_cache(maxsize=1)
def _linker_cache() -> bytes | None:
    try:
        return LINKER_CACHE.read_bytes()
    except OSError:
        return None


def _version(name: str) -> float:
    """A number that changes when the library changes."""
    try:
        return (Path(name) if "/" in name else LINKER_CACHE).stat().st_mtime
    except OSError:
        return 0


def _measure(candidates: Sequence[Candidate]) -> list[float] | None:
    """The rate of each candidate in GFLOP/s, 0 for what does not work; None if nothing can be measured."""
    import subprocess

    script = Path(__file__).with_name("blas_speed.py")
    argument = json.dumps([(candidate.name, candidate.environment) for candidate in candidates])
    command = [sys.executable, "-I", "-S", str(script), argument]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S, check=True
        )
        rates: list[float] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return rates


def _cache_file(key: str) -> Path:
    """A file for each key: a home folder may serve several machines, and a machine several environments."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(folder) / "mlx-aimv2" / f"blas-{zlib.crc32(key.encode()):08x}.json"


def _stored(path: Path, key: str, count: int) -> list[float] | None:
    """The ``count`` rates that were stored for the same machine and libraries."""
    try:
        data = json.loads(path.read_bytes())
        rates = [float(rate) for rate in data["rates"]]
        return rates if data["key"] == key and len(rates) == count else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _store(path: Path, key: str, rates: list[float]) -> list[float]:
    """Keep the rates, and return those that hold: of processes that measure at once, the first one decides for all.

    Another library would give other bits. Without a place to keep them, they are measured again the next time.
    """
    if not path.is_absolute():  # there is no home folder
        return rates
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps({"key": key, "rates": rates}))
        with contextlib.suppress(OSError):  # there is a file already, or the disk has no hard links
            path.hardlink_to(temporary)
        held = _stored(path, key, len(rates))
        if held is None:  # damaged, or of another machine
            temporary.replace(path)
    except OSError:
        held = None
    with contextlib.suppress(OSError):
        temporary.unlink()
    return rates if held is None else held
