"""State: everything comes back exactly, and what does not fit is refused."""

from __future__ import annotations

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from helpers.small import Run
from mlx.utils import tree_flatten

from mlx_aimv2.errors import DamagedFileError, InputError, OutputError
from mlx_aimv2.training.options import OPTIMIZERS
from mlx_aimv2.training.state import LOG, STATE, Place, SavedRun


class Stop(Exception):
    """A run is cut off."""


def cut_off(run, steps):
    """Run so many steps, and no more."""
    make, done = run.stepper.step, 0

    def step(*arguments):
        nonlocal done
        if done == steps:
            raise Stop
        done += 1
        return make(*arguments)

    run.stepper.step = step
    with pytest.raises(Stop):
        run.loop.run()


def all_of(run):
    """Weights, averages and optimizer of a run."""
    optimizer = {name: np.array(x) for name, x in dict(tree_flatten(run.stepper.optimizer.state)).items()}
    ema = {f"ema.{name}": np.array(x) for name, x in (run.loop._ema or {}).items()}
    return {**run.weights(), **optimizer, **ema}


def assert_alike(first, second):
    first, second = all_of(first), all_of(second)
    assert first.keys() == second.keys()
    assert [name for name in first if not np.array_equal(first[name], second[name])] == []


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps", [0, 2, 5, 8])
def test_a_run_that_was_cut_off_goes_on_as_if_nothing_had_happened(tmp_path, optimizer, steps):
    given = {"optimizer": optimizer, "save_every": 2, "ema": 0.9 if steps else 0.0}
    whole, first, second = (Run(tmp_path / name, **given) for name in ("whole", "cut", "cut"))
    expected = whole.loop.run()
    cut_off(first, steps)
    assert second.loop.run(resume=True) == expected
    assert_alike(second, whole)
    assert (tmp_path / "cut" / LOG).read_text() == (tmp_path / "whole" / LOG).read_text()
    assert second.loop.place == whole.loop.place


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    first, second = Run(tmp_path), Run(tmp_path)
    done = first.loop.run()
    assert second.loop.run(resume=True) == done
    assert second.data.taken == []
    assert_alike(first, second)


def test_a_compiled_step_sees_what_was_restored(tmp_path):
    """It holds on to the optimizer's own dict, so that has to stay the same one."""
    first, second = Run(tmp_path), Run(tmp_path)
    first.loop.run()
    states = second.stepper.optimizer.state["states"]
    bodies = [state["body"] for state in states]
    second.loop.run(resume=True)
    for state, found, body in zip(states, second.stepper.optimizer.state["states"], bodies, strict=True):
        assert found is state and state["body"] is body and state["step"].item() == 9


def test_it_says_what_differs(tmp_path):
    Run(tmp_path, seed=3).loop.run()
    with pytest.raises(
        InputError, match=r"--resume: seed was 3 in .* and is 4 now: give the same again, or name another"
    ):
        Run(tmp_path, seed=4).loop.run(resume=True)
    with pytest.raises(InputError, match=r"learning_rate was 0\.02 in .* and is 0\.1 now"):
        Run(tmp_path, learning_rate=0.1).loop.run(resume=True)


def test_another_model_is_refused(tmp_path):
    Run(tmp_path).loop.run()
    other = Run(tmp_path)
    other.model.body.freeze()
    with pytest.raises(
        InputError, match="is the state of another model or method: name another --adapter-path"
    ):
        other.loop.run(resume=True)


def test_without_a_state_there_is_nothing_to_restore(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(InputError, match="holds no run to go on with: leave --resume out"):
        run.saved.restore(run.model, run.stepper.optimizer, None)


def test_a_run_that_was_killed_before_it_saved_anything_begins_anew(tmp_path):
    (tmp_path / LOG).write_text('{"step": 1}\n{"st')
    run = Run(tmp_path)
    assert run.loop.run(resume=True).steps == 9
    assert [line["step"] for line in run.saved.read_log() if "loss" in line] == list(range(1, 10))


@pytest.mark.parametrize(
    "damage", ["cut off", "no note", "a part missing", "not a file of tensors", "unknown"]
)
def test_a_damaged_state_is_refused(tmp_path, damage):
    Run(tmp_path).loop.run()
    path = tmp_path / STATE
    arrays, note = mx.load(str(path), return_metadata=True)
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "no note":
        mx.save_safetensors(str(path), arrays, metadata={})
    elif damage == "a part missing":
        arrays = {name: x for name, x in arrays.items() if name != "optimizer.states.1.step"}
        mx.save_safetensors(str(path), arrays, metadata=note)
    elif damage == "unknown":
        mx.save_safetensors(str(path), arrays, metadata={**note, "mlx_aimv2_state": '{"place": {"era": 1}}'})
    else:
        path.write_bytes(b"what?")
    with pytest.raises(DamagedFileError, match=STATE):
        Run(tmp_path).loop.run(resume=True)


def test_the_log_is_cut_where_the_state_was_saved(tmp_path):
    run = Run(tmp_path, save_every=2)
    cut_off(run, 5)
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 5, "lo')
    place = Run(tmp_path, save_every=2).loop.place
    again = Run(tmp_path, save_every=2)
    place = again.saved.restore(again.model, again.stepper.optimizer, again.loop._ema)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert len(lines) == place.lines and lines[-1]["step"] == place.step == 4


def test_a_folder_that_is_gone_is_an_output_error(tmp_path):
    run = Run(tmp_path / "a")
    (tmp_path / "a").rmdir()
    with pytest.raises(OutputError, match=r"state\.safetensors cannot be written: No such file or directory"):
        run.loop.run()
    with pytest.raises(OutputError, match=r"metrics\.jsonl cannot be written: No such file or directory"):
        SavedRun(tmp_path / "a", {}).log(Place(), {})


def test_bfloat16_comes_back_to_the_bit(tmp_path):
    first, second = Run(tmp_path), Run(tmp_path)
    for run in (first, second):
        run.model.set_dtype(mx.bfloat16)
        run.stepper.optimizer.init(run.model.trainable_parameters())
        run.loop._ema = None
    first.saved.save(Place(step=1), first.model, first.stepper.optimizer, None)
    second.model.body.weight = second.model.body.weight * 0
    second.saved.restore(second.model, second.stepper.optimizer, None)
    assert mx.array_equal(second.model.body.weight, first.model.body.weight).item()
    assert second.model.body.weight.dtype == mx.bfloat16


@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for a CPU with g++")
def test_compiled_steps_are_the_same_steps_and_go_on_too(tmp_path, monkeypatch):
    """As on a GPU: dropout, running averages and the optimizer's state are all seen by what is compiled."""
    plain = Run(tmp_path / "plain", save_every=2)
    plain.loop.run()
    cut_off(Run(tmp_path / "cut", save_every=2), 5)
    monkeypatch.setattr("mlx_aimv2.training.step.on_cpu", lambda: False)
    whole, second = (Run(tmp_path / name, save_every=2) for name in ("whole", "cut"))
    whole.loop.run()
    second.loop.run(resume=True)
    expected, again = all_of(whole), all_of(second)
    for name, x in all_of(plain).items():
        np.testing.assert_allclose(expected[name], x, rtol=1e-3, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(again[name], expected[name], rtol=1e-3, atol=1e-5, err_msg=name)
    losses = [
        [line["loss"] for line in run.saved.read_log() if "loss" in line] for run in (plain, whole, second)
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-4)
