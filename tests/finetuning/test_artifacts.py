"""The best epoch on disk: a full disk leaves the old one, and a kill at any moment changes nothing in the end."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2 import load
from mlx_aimv2.adapters.task import SWAP, TASK
from mlx_aimv2.errors import NotACheckpointError, OutputError
from mlx_aimv2.events import Notice, ignore
from mlx_aimv2.finetuning.run import finetune
from mlx_aimv2.storage import atomic

FILES = ("adapter_model.safetensors", "adapter_config.json", "head.safetensors", "task.json")


class Killed(BaseException):
    """The process ends; nothing but a test catches this."""


@pytest.fixture
def given(options, tmp_path):
    """Gives options of a run whose every epoch is the best so far."""
    defaults = {"metric": "loss", "learning_rate": 1e-2, "epochs": 3}
    return lambda name, **more: options(adapter_path=str(tmp_path / name), **{**defaults, **more})


@pytest.fixture
def kill_at(monkeypatch):
    """Ends the process before so many steps of swaps; the number of steps that were made."""
    made, last = [], [0]

    def counted(method):
        def step(path, *arguments, **more):
            if SWAP in path.parts or SWAP in Path(*arguments[:1]).parts or path.name == TASK:
                if len(made) == last[0]:
                    raise Killed
                made.append(path.name)
            return method(path, *arguments, **more)

        return step

    for name in ("rename", "replace", "unlink", "rmdir"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))

    def kill_at(step):
        made.clear()
        last[0] = step
        return made

    return kill_at


def contents(folder):
    """All that a run leaves for use."""
    tensors = {
        f"{file}: {name}": np.array(x)
        for file in ("adapter_model.safetensors", "head.safetensors", ".training/state.safetensors")
        for name, x in mx.load(str(folder / file)).items()
    }
    texts = {
        name: (folder / name).read_text() for name in ("task.json", "adapter_config.json", "metrics.jsonl")
    }
    return tensors, texts


def assert_same(folder, expected):
    (found, texts), (wanted, wanted_texts) = contents(folder), contents(expected)
    assert texts == wanted_texts and found.keys() == wanted.keys()
    assert [name for name in wanted if not np.array_equal(found[name], wanted[name])] == []
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}


def test_a_kill_at_every_step_of_a_swap_changes_nothing_in_the_end(given, tmp_path, kill_at):
    steps, short = kill_at(-1), {"epochs": 2, "batch_size": 15}
    whole = finetune(given("whole", **short))
    assert whole.trained.best_epoch == 1
    each = (
        len(steps) // 2
    )  # the whole folder gets its name, the old task.json goes, four files come, the folder goes
    assert len(steps) == 2 * each and each == 7
    for step in range(2 * each):  # of the first epoch and the second
        name = f"killed-{step}"
        kill_at(step)
        with pytest.raises(Killed):
            finetune(given(name, **short))
        kill_at(-1)
        try:
            load(given(name).model, adapter_path=tmp_path / name, on_event=ignore)
        except NotACheckpointError as error:
            first = step <= each - 2
            assert "resume it" in str(error) or (first and "holds neither" in str(error))
            assert first or step > each + 1
        finetune(given(name, **short, resume=True))
        assert_same(tmp_path / name, tmp_path / "whole")


@pytest.mark.parametrize("file", FILES)
def test_a_disk_that_fills_leaves_the_best_epoch_so_far(given, tmp_path, monkeypatch, file):
    finetune(given("whole"))
    sync, times = atomic.sync, []

    def full(path):
        if path.name.startswith(f".{file}."):
            times.append(path)
            if len(times) == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(path)

    monkeypatch.setattr(atomic, "sync", full)
    folder = tmp_path / "full"
    with pytest.raises(OutputError) as caught:
        finetune(given("full"))
    assert str(caught.value) == (
        f"{folder / file} cannot be written: No space left on device; once it can be, --resume goes on with this run"
    )
    assert [path.name for path in folder.glob(".*")] == [".training"]
    load(given("full").model, adapter_path=folder, on_event=ignore)
    finetune(given("full", resume=True))
    assert_same(folder, tmp_path / "whole")


@pytest.mark.parametrize("ended", [False, True])
def test_a_best_epoch_that_was_lost_is_replaced(given, tmp_path, ended, monkeypatch):
    if ended:
        finetune(given("a"))
    else:
        monkeypatch.setattr("mlx_aimv2.training.loop.Loop._patience_is_over", stop_after_two)
        with pytest.raises(Killed):
            finetune(given("a"))
        monkeypatch.undo()
    (tmp_path / "a" / TASK).unlink()
    events = []
    finished = finetune(given("a", resume=True), events.append)
    said = [event.message for event in events if isinstance(event, Notice)]
    assert any("the best epoch so far, " in line and "is not whole in" in line for line in said)
    assert finished.trained.best_epoch == 2
    load(given("a").model, adapter_path=tmp_path / "a", on_event=ignore)
    assert finetune(given("a", resume=True)).trained == finished.trained


def stop_after_two(loop):
    if loop.place.epoch == 2:
        raise Killed
    return False


def test_what_another_run_left_is_not_taken_for_the_best(given, tmp_path):
    (tmp_path / "a" / SWAP).mkdir(parents=True)
    (tmp_path / "a" / SWAP / "head.safetensors").write_text("old")
    finetune(given("a"))
    assert not (tmp_path / "a" / SWAP).exists()
