"""Runs that have ended and go on to another end."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.small import Run

from mlx_aimv2.errors import InputError
from mlx_aimv2.events import Notice
from mlx_aimv2.training.schedule import learning_rate


def log(run, what):
    lines = [json.loads(line) for line in (run.saved.folder / "metrics.jsonl").read_text().splitlines()]
    return [line[what] for line in lines if what in line]


def notices(run):
    return [event.message for event in run.events if isinstance(event, Notice)]


def scores(*values):
    remaining = iter(values)
    return lambda: {"top1": next(remaining), "loss": 1.0}


def test_a_run_that_has_ended_goes_on_with_more_epochs(tmp_path):
    first = Run(tmp_path, epochs=2)
    assert first.loop.run().steps == 6
    more = Run(tmp_path, epochs=5)
    done = more.loop.run(resume=True)
    assert (done.epochs, done.steps, done.stopped_early) == (5, 15, False)
    assert log(more, "loss").__len__() == 15 and len(log(more, "validation")) == 5
    assert sorted({epoch for epoch, _ in more.data.taken}) == [2, 3, 4]
    expected = [learning_rate(step, 15, more.options.loop) for step in range(6, 15)]
    np.testing.assert_allclose(log(more, "learning_rate")[6:], expected)
    assert notices(more) == [
        "the run goes on from step 6 to 15 in place of 6: the cosine schedule reaches to the new end, and the"
        f" learning rate is {expected[0]:.3g} now"
    ]


def test_optimizer_and_weights_go_on_from_the_last_epoch(tmp_path):
    """With a constant rate it is to the bit the run that was asked for all of its epochs at first."""
    given = {"schedule": "constant", "warmup": 0.0}
    whole = Run(tmp_path / "whole", epochs=5, **given)
    whole.loop.run()
    Run(tmp_path / "more", epochs=2, **given).loop.run()
    more = Run(tmp_path / "more", epochs=5, **given)
    more.loop.run(resume=True)
    for name, x in whole.weights().items():
        np.testing.assert_array_equal(more.weights()[name], x, err_msg=name)
    assert log(more, "loss") == log(whole, "loss")


@pytest.mark.parametrize(("first", "second"), [(4, 8), (5, 14), (7, 9), (9, 10)])
def test_steps_go_on_within_an_epoch(tmp_path, first, second):
    given = {"schedule": "constant", "warmup": 0.0, "grad_accumulation_steps": 1}
    whole = Run(tmp_path / "whole", iters=second, **given)
    whole.loop.run()
    Run(tmp_path / "more", iters=first, **given).loop.run()
    more = Run(tmp_path / "more", iters=second, **given)
    done = more.loop.run(resume=True)
    assert (done.steps, done.epochs) == (second, -(-second // 3))
    assert log(more, "loss") == log(whole, "loss")


def test_without_a_length_a_run_goes_on_to_the_end_it_had(tmp_path):
    Run(tmp_path, epochs=2).loop.run()
    same = Run(tmp_path, epochs=None)
    assert same.loop.run(resume=True).steps == 6
    assert notices(same) == ["this run has ended after 6 steps: more --epochs let it go on"]


def test_a_new_end_is_kept_by_the_next_resume(tmp_path):
    Run(tmp_path, epochs=2).loop.run()
    cut = Run(tmp_path, scores(), epochs=5)  # before it saves anything else
    with pytest.raises(StopIteration):
        cut.loop.run(resume=True)
    again = Run(tmp_path, epochs=None)
    assert again.loop.run(resume=True).epochs == 5 and notices(again) == []


@pytest.mark.parametrize(
    ("given", "what"),
    [({"epochs": 1}, "--epochs 1: .* has done 2"), ({"iters": 5}, "--iters 5: .* has done 6")],
)
def test_an_end_that_has_passed_is_refused(tmp_path, given, what):
    Run(tmp_path, epochs=2).loop.run()
    with pytest.raises(
        InputError, match=f"--resume: {what} already: give more, or name another --adapter-path"
    ):
        Run(tmp_path, **given).loop.run(resume=True)


def test_fewer_epochs_end_a_run_that_is_not_there_yet(tmp_path):
    cut = Run(tmp_path, scores(0.9), epochs=5)
    with pytest.raises(StopIteration):
        cut.loop.run()
    assert Run(tmp_path, epochs=3).loop.run(resume=True).epochs == 3


def test_patience_that_ended_a_run_begins_anew_with_more_epochs(tmp_path):
    given = {"patience": 2, "warmup": 0.0}
    first = Run(tmp_path, scores(0.5, 0.4, 0.3), epochs=4, **given)
    assert first.loop.run().stopped_early
    same = Run(tmp_path, scores(), epochs=4, **given)
    assert same.loop.run(resume=True).epochs == 3
    assert notices(same) == [
        "this run has ended after 9 steps, as --patience has it: more --epochs let it go on"
    ]
    more = Run(tmp_path, scores(0.4, 0.4), epochs=8, **given)
    done = more.loop.run(resume=True)
    assert (done.epochs, done.best_epoch, done.stopped_early) == (5, 0, True)
