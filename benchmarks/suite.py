"""Cases, their sides, and how a side runs in a process of its own.

A side is a function of a case's module. It takes a `Setup` and arguments, and returns `timings` (durations by name,
in seconds) and `values` (numbers by name). It has a process of its own, because the BLAS that MLX loads globally
slows PyTorch in the same process, and because a peak of memory belongs to a process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LONGEST_S = 900  # of one process
Result = dict[str, Any]

QUICK_VISION = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}


@dataclass(frozen=True)
class Setup:
    """What every side gets.

    Attributes:
        work: a folder for checkpoints and images.
        quick: a tiny model and small images, to try the suite itself.
    """

    work: str
    quick: bool = False

    @property
    def folder(self) -> Path:
        """``work`` as a path."""
        return Path(self.work)

    def vision(self, **changes: Any) -> dict[str, Any]:
        """The fields of a vision config: large-224 without a head, with changes."""
        return {"use_head": False, **(QUICK_VISION if self.quick else {}), **changes}


@dataclass(frozen=True)
class Side:
    """One program of a comparison.

    Attributes:
        name: in the tables.
        function: of a module in `cases`; it runs in another process.
        arguments: for it.
        is_peer: it needs PyTorch, and not this package.
        rounds: at most so many, for sides that take long; None for all.
    """

    name: str
    function: Callable[..., Result]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    is_peer: bool = False
    rounds: int | None = None


@dataclass(frozen=True)
class Case:
    """Sides that do the same work.

    Attributes:
        name: unique in its family.
        sides: ours first; they run in turns.
        images: that one timing handles; 0 where a rate means nothing.
        rounds: how often every side runs.
        prepare: writes what the sides read; it is not measured.
    """

    name: str
    sides: tuple[Side, ...]
    images: int = 1
    rounds: int = 3
    prepare: tuple[Side, ...] = ()


@dataclass(frozen=True)
class Family:
    """Cases of one kind.

    Attributes:
        name: as on the command line.
        title: of its section.
        note: what is measured, in a sentence or two.
        cases: from a setup to the cases.
    """

    name: str
    title: str
    note: str
    cases: Callable[[Setup], list[Case]]


@dataclass(frozen=True)
class Runner:
    """Starts the processes.

    Attributes:
        setup: for every side.
        rounds: at most so many for every case.
        peer_python: the interpreter of sides that need PyTorch.
    """

    setup: Setup
    rounds: int = 3
    peer_python: str = sys.executable

    def run(self, case: Case) -> Result:
        """The result of every side: `rounds`, a list of what its processes returned, and perhaps a `problem`."""
        results: dict[str, Result] = {side.name: {"rounds": []} for side in case.sides}
        for side in case.prepare:
            if "problem" in (prepared := self.run_side(side)):
                return {name: {"rounds": [], "problem": prepared["problem"]} for name in results}
        for number in range(min(case.rounds, self.rounds)):
            for side in case.sides:
                result = results[side.name]
                if "problem" in result or number >= (side.rounds or case.rounds):
                    continue
                done = self.run_side(side)
                if "problem" in done:
                    result["problem"] = done["problem"]
                else:
                    result["rounds"].append(done)
        return results

    def run_side(self, side: Side) -> Result:
        """What the side returned, with `peak_bytes` and `process_s`; or only a `problem`, if it fails."""
        python = self.peer_python if side.is_peer else sys.executable
        command = [python, str(HERE / "child.py"), side.function.__module__, side.function.__name__]
        command += [json.dumps(asdict(self.setup)), json.dumps(dict(side.arguments))]
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=LONGEST_S, env=environment(self.setup)
            )
        except subprocess.TimeoutExpired:
            return {"problem": f"took longer than {LONGEST_S} s"}
        except OSError as error:
            return {"problem": f"{python}: {error.strerror}"}
        if done.returncode:
            return {"problem": problem(done)}
        try:
            result = json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            return {"problem": "printed no result"}
        return {**result, "process_s": time.perf_counter() - start}


def environment(setup: Setup) -> dict[str, str]:
    """The environment of a side: no network, and compiled files in the folder for data."""
    inherited = {name: x for name, x in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    paths = [str(HERE), str(HERE.parent), str(HERE.parent / "examples"), os.environ.get("PYTHONPATH", "")]
    return {
        **inherited,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONPYCACHEPREFIX": str(setup.folder / "pycache"),
        "TORCHINDUCTOR_CACHE_DIR": str(setup.folder / "inductor"),
    }


def problem(done: subprocess.CompletedProcess[str]) -> str:
    """Why a process failed, in a line."""
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    last = lines[-1] if lines else f"exit status {done.returncode}"
    if done.returncode < 0:
        last = f"ended by signal {-done.returncode}"
    if missing := re.match(r"ModuleNotFoundError: No module named '([\w.]+)'", last):
        return f"{missing[1].partition('.')[0]} is not installed"
    return last[:300]
