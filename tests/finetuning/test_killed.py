"""Runs that are killed, and gone on with: what they leave is what an uninterrupted run leaves, bit for bit."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from helpers.captioned import captioned

RUN = """
import json, sys
from mlx_aimv2.backend.device import require_mlx
require_mlx()
from mlx_aimv2.errors import Aimv2Error
from mlx_aimv2.finetuning.config_file import make_options
from mlx_aimv2.finetuning.run import finetune
import mlx.core as mx
mx.set_default_device(mx.cpu)
given = json.loads(sys.argv[1])
print("begin", flush=True)
try:
    finetune(make_options(given))
except Aimv2Error as error:
    sys.exit(f"{type(error).__name__}: {error}")
print("end", flush=True)
"""
FILES = (
    "adapter_model.safetensors",
    "head.safetensors",
    "trained.safetensors",
    ".training/state.safetensors",
)
KILLS = 10


def start(given: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, json.dumps(given)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(given: dict[str, Any]) -> float:
    """Run to the end; the seconds after everything was imported."""
    run = start(given)
    assert run.stdout is not None and run.stdout.readline() == "begin\n"
    began = time.monotonic()
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    return time.monotonic() - began


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return {
        f"{file}: {name}": np.array(x)
        for file in FILES
        if (folder / file).is_file()
        for name, x in mx.load(str(folder / file)).items()
    }


@pytest.fixture(params=["classify", "contrastive"])
def given(
    request: pytest.FixtureRequest, data: Path, tiny_vision: Path, tiny_pair: Path, tmp_path: Path
) -> dict[str, Any]:
    """A run with everything in it that draws at random or remembers."""
    of_task = {
        "classify": {"data": str(data), "model": str(tiny_vision), "batch_size": 2, "mixup": 0.3},
        "contrastive": {
            "task": "contrastive",
            "data": str(captioned(tmp_path / "images")),
            "model": str(tiny_pair),
            "batch_size": 4,
            "text_tower": "trained",
        },
    }
    return {
        **of_task[request.param],
        "epochs": 5,
        "grad_accumulation_steps": 2,
        "rank": 2,
        "dropout": 0.1,
        "flip": 0.5,
        "color_jitter": 0.2,
        "ema": 0.9,
        "save_every": 3,
        "learning_rate": 1e-3,
    }


def test_killed_at_ten_moments_and_resumed_is_the_same_to_the_last_bit(
    given: dict[str, Any], tmp_path: Path
) -> None:
    whole, other, killed = tmp_path / "whole", tmp_path / "other", tmp_path / "killed"
    seconds = finished({**given, "adapter_path": str(whole)})
    finished({**given, "adapter_path": str(other)})
    assert_same(other, whole)
    rng, kills, moments = random.Random(3), 0, []
    while kills < KILLS:
        run = start({**given, "adapter_path": str(killed), "resume": killed.is_dir()})
        assert run.stdout is not None and run.stdout.readline() == "begin\n"
        time.sleep(rng.uniform(0, seconds / 2))
        run.send_signal(signal.SIGKILL)
        out, errors = run.communicate(timeout=60)
        assert not errors
        if "end" in out:  # it was quicker than the kill: the next one is a run of its own
            assert_same(killed, whole)
            shutil.rmtree(killed)
        else:
            kills += 1
            moments.append(lines(killed))
    assert len(set(moments)) > 2, f"these moments are no test: {moments}"
    finished({**given, "adapter_path": str(killed), "resume": killed.is_dir()})
    assert_same(killed, whole)


def assert_same(folder: Path, expected: Path) -> None:
    found, wanted = tensors(folder), tensors(expected)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not np.array_equal(wanted[name], found[name])] == []
    for name in ("metrics.jsonl", "task.json", "adapter_config.json", "splits.json"):
        assert (folder / name).read_text() == (expected / name).read_text()
    assert [path.name for path in folder.glob(".*")] == [".training"]


def lines(folder: Path) -> int:
    log = folder / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.is_file() else 0


def test_a_disk_that_is_full_is_one_clear_line(given: dict[str, Any], tmp_path: Path) -> None:
    limited = RUN.replace("import json, sys", "import json, sys, resource").replace(
        'print("begin", flush=True)',
        'resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); print("begin", flush=True)',
    )
    command = [sys.executable, "-c", limited, json.dumps({**given, "adapter_path": str(tmp_path / "a")})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("OutputError: ") and done.stderr.count("\n") == 1
    assert "cannot be written: File too large" in done.stderr
    assert list((tmp_path / "a").glob("*.safetensors")) == []
