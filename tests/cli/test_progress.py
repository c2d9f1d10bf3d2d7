"""What is shown of a training, on a terminal and in a pipe."""

from __future__ import annotations

import io
import re
import sys

import pytest

from mlx_aimv2.cli.live_bar import LIVE
from mlx_aimv2.cli.progress import Training
from mlx_aimv2.cli.screen import screen
from mlx_aimv2.events import EpochDone, Notice, Progress, Skipped, StepDone

STEPS, EPOCHS = 40, 4


class Clock:
    """A second a step, three a validation."""

    now = 0.0

    def __call__(self):
        return self.now


def training(epochs=EPOCHS, steps=STEPS):
    """The events of a whole run, each with the seconds since the one before."""
    yield 0, Progress("training", 0, steps, unit="steps")
    each = steps // epochs
    for epoch in range(epochs):
        for step in range(epoch * each + 1, (epoch + 1) * each + 1):
            yield 1, StepDone(step, steps, epoch, epochs, 2.0 / step, 1e-3, 1.0, 8, 2 * 10**9)
            yield 0, Progress("training", step, steps, unit="steps")
        yield 3, EpochDone(step, steps, epoch, epochs, {"loss": 0.5, "top1": 0.875})


def lines_of(known, clock, events):
    lines = []
    for seconds, event in events:
        clock.now += seconds
        if isinstance(event, StepDone):
            lines += known.add_step(event)
        elif isinstance(event, EpochDone):
            lines += known.add_epoch(event)
        else:
            known.begin()
    return lines


def test_a_line_for_every_epoch_and_every_tenth_of_the_steps():
    clock = Clock()
    lines = lines_of(Training(clock), clock, training())
    steps = [line for line in lines if "step " in line]
    assert [int(line.split("step ")[1].split(" ")[0]) for line in steps] == list(range(4, 41, 4))
    assert len(lines) == 10 + EPOCHS
    assert steps[4].startswith("epoch 2 of 4, step 20 of 40: loss 0.1")
    assert "learning rate 1.00e-03, 8.0 images/s, 2.00 GB, 23.0 s left" in steps[4]
    first = next(line for line in lines if "val_loss" in line)
    mean = sum(2 / step for step in range(1, 11)) / 10
    assert first == (
        f"epoch 1 of 4: loss {mean:.4f}, val_loss 0.5000, val_top1 0.8750, 8.0 images/s, 2.00 GB, 39.0 s left"
    )


def test_a_short_run_has_a_line_for_every_step_and_a_long_one_no_more_than_ten():
    for steps, expected in ((4, 3), (4000, 10)):
        clock = Clock()
        lines = lines_of(Training(clock), clock, training(epochs=1, steps=steps))
        assert len([line for line in lines if "step " in line]) == expected


def test_what_went_before_the_first_step_does_not_count():
    clock = Clock()
    known = Training(clock)
    clock.now = 1000.0
    lines = lines_of(known, clock, training())
    assert "8.0 images/s" in lines[0]


def test_a_run_that_goes_on_counts_from_where_it_was():
    clock = Clock()
    known = Training(clock)
    lines = lines_of(known, clock, list(training())[50:])
    assert known.images_per_second == pytest.approx(8.0)
    assert "0.0 s left" in lines[-1]


def test_a_run_that_goes_on_with_a_validation_says_nothing_of_steps():
    known = Training(Clock())
    event = EpochDone(20, STEPS, 1, EPOCHS, {"loss": 0.5, "top1": 0.875})
    assert known.add_epoch(event) == ["epoch 2 of 4: val_loss 0.5000, val_top1 0.8750"]


def test_a_image_that_is_left_out_is_named_once(capsys):
    with screen() as shown:
        shown(Skipped("bad\nname.jpg", "bad name.jpg: cut off or damaged"))
    assert capsys.readouterr().err.rstrip().endswith("name.jpg: cut off or damaged")
    with screen() as shown:
        shown(Skipped("a.jpg", "a.jpg: not an image"))
    assert capsys.readouterr().err == "mlx-aimv2: skipped a.jpg: not an image\n"


def test_the_live_line_has_everything():
    clock = Clock()
    known = Training(clock)
    events = list(training())
    lines_of(known, clock, events[:30])
    last = next(event for _, event in reversed(events[:30]) if isinstance(event, EpochDone | StepDone))
    shown = known.fields(last)
    assert shown["epoch"] == "epoch 2/4"
    for part in ("loss 0.1", "top1 87.5%", "left", "8.0/s", "lr 1.0e-03", "2.00 GB"):
        assert part in shown["facts"]
    assert len(f"{shown['epoch']} {'-' * 12} 14/40 {shown['facts']}") < 100


def test_of_several_labels_the_live_line_shows_map():
    known = Training(Clock())
    known.add_step(StepDone(1, 2, 0, 2, 1.0, 1e-3, 1.0, 8, 0))
    metrics = {"loss": 0.5, "macro_f1": 0.1, "map": 0.75, "exact_match": 0.0}
    known.add_epoch(EpochDone(1, 2, 0, 2, metrics))
    assert known.validation == "map 75.0%"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_there_is_a_bar_and_epochs_stay_above_it(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with screen() as shown:
        shown(Progress("checking images", 5, 10))
        for _, event in training():
            shown(event)
            if isinstance(event, StepDone) and event.step == 7:
                LIVE.bars.refresh()
                shown(Notice("by the way"))
        shown(Progress("evaluating", 1, 10))
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "epoch 1/4" in text and " 7/40 " in text and "loss " in text
    assert text.count("val_top1 0.8750") == EPOCHS and "step 20 of 40" not in text
    assert "mlx-aimv2: by the way" in text and "evaluating" in text


def test_in_a_pipe_there_are_only_lines(capsys):
    with screen() as shown:
        for _, event in training():
            shown(event)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10 + EPOCHS and all(line.startswith("mlx-aimv2: epoch ") for line in lines)
