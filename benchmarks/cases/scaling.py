"""Speed by batch, by patches, and by processes and threads."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import ours
from data import checkpoint
from suite import Case, Family, Result, Setup, Side
from timing import repeated

BATCHES = (1, 2, 4, 8)
GRIDS = (8, 12, 16, 24, 32)  # patches on a side
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS")
FORWARDS = 4  # of a process
WORKER = "import sys; from cases.scaling import worker; worker(sys.argv[1])"


def by_batch(setup: Setup) -> Result:
    """Forward passes of large-224, in seconds for an image."""
    return _forward(setup, "large-224", {f"batch {batch}": (batch, 16) for batch in BATCHES})


def by_patches(setup: Setup) -> Result:
    """Forward passes of the native-resolution model."""
    return _forward(setup, "native", {f"{grid**2} patches": (1, grid) for grid in GRIDS})


def _forward(setup: Setup, name: str, shapes: dict[str, tuple[int, int]]) -> Result:
    model, _ = ours.load_model(setup, name)
    import mlx.core as mx

    timings = {}
    for label, (batch, grid) in shapes.items():
        pixels = mx.random.normal((batch, 14 * grid, 14 * grid, 3))
        run = lambda pixels=pixels: mx.eval(model(pixels).last_hidden_state)  # noqa: E731
        timings[label] = [x / batch for x in repeated(setup, run, most=3, budget_s=3)]
    return {"timings": timings, "values": {}}


def processes(setup: Setup, count: int, threads: int) -> Result:
    """Some processes at the same time, each with some BLAS threads; the time of all their forward passes."""
    environment = {**os.environ, **dict.fromkeys(THREADS, str(threads))}
    command = [sys.executable, "-c", WORKER, setup.work]
    started = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    for process in started:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("a process failed to start")
    start = time.perf_counter()
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in started:
        process.stdout.readline()
    duration = time.perf_counter() - start
    for process in started:
        process.communicate()
    return {"timings": {"": [duration / (count * FORWARDS)]}, "values": {}}


def worker(work: str) -> None:
    """One of the processes: it says when it is ready, and computes when it is told."""
    model, _ = ours.load_model(Setup(work), "large-224")
    import mlx.core as mx

    pixels = mx.random.normal((1, 224, 224, 3))
    mx.eval(model(pixels).last_hidden_state)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(FORWARDS):
        mx.eval(model(pixels).last_hidden_state)
    print("done", flush=True)


def counted(count: int, noun: str) -> str:
    """A number with its noun, which takes an s or es."""
    return f"{count} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def cases(setup: Setup) -> list[Case]:
    """Batches, patches, processes."""
    cores = os.cpu_count() or 1
    shares = dict.fromkeys(((1, cores), (cores, 1)))  # processes and threads
    sides = tuple(
        Side(
            f"{counted(count, 'process')} of {counted(threads, 'thread')}",
            processes,
            {"count": count, "threads": threads},
        )
        for count, threads in shares
    )
    return [
        Case("batches of large-224", (Side("mlx-aimv2", by_batch),), 1, 1, (checkpoint("large-224"),)),
        Case("patches of native", (Side("mlx-aimv2", by_patches),), 1, 1, (checkpoint("native"),)),
        Case("processes x threads", sides, 1, 2, (checkpoint("large-224"),)),
    ]


FAMILY = Family(
    "scaling",
    "Scaling",
    "Forward passes by batch, by patches (one image of the native-resolution model), and by processes at the same"
    " time, in seconds for an image in all.",
    cases,
)
