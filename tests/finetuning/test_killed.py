"""Runs that are killed and resumed: what they leave is what an uninterrupted run leaves, bit for bit."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from helpers.captioned import captioned

from mlx_aimv2.errors import OutputError
from mlx_aimv2.finetuning.config_file import make_options
from mlx_aimv2.finetuning.run import finetune

RUN = """
import json, sys
from mlx_aimv2.backend.device import require_mlx
require_mlx()
from mlx_aimv2.evaluation import charts
from mlx_aimv2.finetuning.config_file import make_options
from mlx_aimv2.finetuning.run import finetune
import mlx.core as mx
mx.set_default_device(mx.cpu)
charts.draw_png = lambda *_, **more: b""
finetune(make_options(json.loads(sys.argv[1])), lambda event: print("event", flush=True))
print("end", flush=True)
"""
FILES = (
    "adapter_model.safetensors",
    "head.safetensors",
    "trained.safetensors",
    ".training/state.safetensors",
)
KILLS = 5


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


def test_killed_at_any_moment_and_resumed_is_the_same_to_the_last_bit(
    given: dict[str, Any], tmp_path: Path, quick_runs: None
) -> None:
    whole, killed, events = tmp_path / "whole", tmp_path / "killed", []
    finetune(make_options({**given, "adapter_path": str(whole)}), events.append)
    rng, kills, moments = random.Random(3), 0, []
    while kills < KILLS:
        options = {**given, "adapter_path": str(killed), "resume": killed.is_dir()}
        with subprocess.Popen(
            [sys.executable, "-c", RUN, json.dumps(options)], stdout=subprocess.PIPE, text=True
        ) as run:
            assert run.stdout is not None
            printed = [run.stdout.readline() for _ in range(rng.randrange(1, len(events) // 2))]
            run.send_signal(signal.SIGKILL)
        if "end\n" in printed:  # a short rest of a run: the next one begins anew
            assert_same(killed, whole)
            shutil.rmtree(killed)
        else:
            kills += 1
            moments.append(lines(killed))
    assert len(set(moments)) > 2, f"these moments are no test: {moments}"
    finetune(make_options({**given, "adapter_path": str(killed), "resume": killed.is_dir()}))
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
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written: File too large") as caught:
            finetune(make_options({**given, "adapter_path": str(tmp_path / "a")}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "a").glob("*.safetensors")) == []
