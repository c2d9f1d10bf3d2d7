"""The loop: what is validated, kept, stopped, averaged and reported."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from helpers.small import Data, Run
from mlx.utils import tree_flatten, tree_unflatten

from mlx_aimv2.adapters.attach import AdapterConfig, adapted, attach
from mlx_aimv2.errors import NonFiniteError, TrainingError
from mlx_aimv2.events import EpochDone, Progress, StepDone
from mlx_aimv2.loading import make_model
from mlx_aimv2.models.layers import EncoderLayer
from mlx_aimv2.training.loop import Trained


def scripted(*values):
    """A validation that finds these values of the metric, one after the other."""
    remaining = iter(values)
    return lambda: {"top1": (x := next(remaining)), "loss": x}


def log(run):
    return [json.loads(line) for line in (run.saved.folder / "metrics.jsonl").read_text().splitlines()]


def test_every_epoch_takes_every_example_once_and_ends_with_a_validation(tmp_path):
    run = Run(tmp_path)
    done = run.loop.run()
    assert sorted(run.data.taken) == [(epoch, index) for epoch in range(3) for index in range(10)]
    assert (done.epochs, done.steps, done.stopped_early) == (3, 9, False)
    lines = log(run)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 10))
    assert [line["epoch"] for line in lines if "validation" in line] == [0, 1, 2]
    assert {"step", "epoch", "loss", "learning_rate", "grad_norm"} == set(lines[0])
    assert lines[-2]["loss"] < lines[0]["loss"]


def test_what_is_reported_adds_up(tmp_path):
    run = Run(tmp_path, grad_accumulation_steps=2)
    run.loop.run()
    steps = [event for event in run.events if isinstance(event, StepDone)]
    validations = [event for event in run.events if isinstance(event, EpochDone)]
    assert [event.images for event in steps] == [8, 2] * 3  # of ten in batches of four
    assert {(event.steps, event.epochs) for event in steps + validations} == {(6, 3)}
    assert all(event.memory_bytes > 0 for event in steps)
    assert [set(event.metrics) for event in validations] == [{"top1", "loss"}] * 3
    progress = [event for event in run.events if isinstance(event, Progress)]
    assert [event.done for event in progress] == list(range(7)) and progress[0].total == 6


@pytest.mark.parametrize(("metric", "best"), [("top1", 1), ("loss", 2)])
def test_the_best_epoch_is_kept_by_the_metric_that_was_named(tmp_path, metric, best):
    run = Run(tmp_path, scripted(0.4, 0.9, 0.1, 0.9), epochs=4, metric=metric)
    done = run.loop.run()
    assert (done.best_epoch, done.best) == (best, [0.4, 0.9, 0.1][best])
    assert len(run.kept) == 2  # and an equal epoch later on is no better


def test_what_a_step_draws_follows_from_the_seed_and_its_number(tmp_path):
    """Dropout of a step is another than that of the one before, and the same whatever came before it."""

    def drawn(name, seed, start=0):
        run, found = Run(tmp_path / name, seed=seed), []
        (tmp_path / name).mkdir(exist_ok=True)
        run.loop.place.step, run.loop.place.epoch = start, start // 3

        def step(batches, rate):
            found.append(tuple(np.array(mx.random.uniform(shape=(4,))).tolist()))
            return 1.0, 1.0

        run.stepper.step = step
        mx.random.seed(len(name))  # which is no matter
        while run.loop.place.epoch < 3:
            run.loop._train_epoch()
            run.loop.place.epoch, run.loop.place.batch = run.loop.place.epoch + 1, 0
        return found

    first = drawn("a", 3)
    assert len(first) == 9 and len(set(first)) == 9
    assert drawn("the same", 3) == first
    assert drawn("later on", 3, start=6) == first[6:]
    assert not set(drawn("another", 4)) & set(first)


def test_patience_ends_a_run_that_gets_no_better(tmp_path):
    run = Run(tmp_path, scripted(0.5, 0.6, 0.6, 0.2, 0.9), epochs=5, patience=2)
    assert run.loop.run() == Trained("top1", 0.6, 1, 4, 12, True)


def test_of_two_epochs_with_the_same_metric_the_one_with_less_loss_is_kept(tmp_path):
    values = iter([(0.5, 0.9), (0.7, 0.4), (0.7, 0.3), (0.7, 0.35), (0.6, 0.1)])

    def validate():
        top1, loss = next(values)
        return {"top1": top1, "loss": loss}

    run = Run(tmp_path, validate, epochs=5)
    assert run.loop.run().best_epoch == 2
    assert run.loop.place.stale == 2  # and better it was


def measures(metric, *pairs):
    """A validation that finds these pairs of the metric and the loss, one after the other."""
    remaining = iter(pairs)

    def validate():
        value, loss = next(remaining)
        return {metric: value, "loss": loss}

    return validate


NAN = math.nan


@pytest.mark.parametrize(
    ("metric", "pairs", "epochs", "best"),
    [
        ("top1", [(0.5, 0.9), (0.5, 0.8), (0.5, 0.7), (0.5, 0.6), (0.5, 0.5)], 5, 4),
        ("top1", [(1.0, 0.9), (1.0, 0.9), (1.0, 0.9), (1.0, 0.9), (1.0, 0.9)], 3, 0),
        ("top1", [(NAN, 0.9), (NAN, 0.8), (NAN, 0.7), (NAN, 0.8), (NAN, 0.8)], 5, 2),
        ("top1", [(NAN, 0.9), (0.1, 0.9), (0.1, NAN), (NAN, 0.1), (0.9, 0.9)], 4, 1),
        ("top1", [(0.1, NAN), (0.1, 5.0), (0.1, NAN), (0.1, 4.0), (0.0, 0.1)], 5, 3),
        ("loss", [(0.9, 0.9), (0.8, 0.8), (0.9, 0.9), (0.7, 0.7), (0.8, 0.8)], 5, 3),
        ("loss", [(0.1, 0.1), (0.2, 0.2), (0.3, 0.3), (0.0, 0.0), (0.0, 0.0)], 3, 0),
        ("recall@1", [(0.2, 3.0), (0.2, 2.9), (0.2, 2.8), (0.1, 2.0), (0.3, 3.0)], 5, 4),
    ],
    ids=["falling", "constant", "nan", "once a number", "loss nan", "loss", "loss rises", "recall"],
)
def test_patience_and_the_best_epoch_have_one_rule(tmp_path, metric, pairs, epochs, best):
    task = "contrastive" if metric == "recall@1" else "classify"
    run = Run(tmp_path, measures(metric, *pairs), epochs=5, patience=2, metric=metric, task=task, warmup=0.0)
    done = run.loop.run()
    assert (done.epochs, done.best_epoch, done.stopped_early) == (epochs, best, epochs < 5)


@pytest.mark.parametrize(("warmup", "epochs"), [(0.0, 3), (0.1, 3), (0.2, 4), (0.4, 6), (0.5, 7), (1.0, 10)])
def test_patience_leaves_out_epochs_of_the_warm_up(tmp_path, warmup, epochs):
    """30 steps in 10 epochs: with half of them the fifth epoch is the last whose learning rate still rises."""
    worse = [(0.9 - 0.01 * k, 1.0) for k in range(10)]
    run = Run(tmp_path, measures("top1", *worse), epochs=10, patience=2, warmup=warmup)
    done = run.loop.run()
    assert (done.epochs, done.best_epoch) == (epochs, 0)


def test_patience_goes_on_counting_after_a_resume(tmp_path):
    """It is cut off after two epochs that were no better, and the third is the last."""
    pairs = [(0.5, 1.0), (0.4, 1.0), (0.4, 1.0), (0.4, 1.0), (0.4, 1.0), (0.4, 1.0)]
    given = {"epochs": 6, "patience": 3, "warmup": 0.0}
    run = Run(tmp_path, measures("top1", *pairs[:3]), **given)
    with pytest.raises(StopIteration):
        run.loop.run()
    again = Run(tmp_path, measures("top1", *pairs[3:]), **given)
    done = again.loop.run(resume=True)
    assert (done.epochs, done.stopped_early, again.loop.place.stale) == (4, True, 3)


def test_without_patience_a_run_goes_to_its_end(tmp_path):
    assert Run(tmp_path, scripted(0.5, 0.4, 0.3)).loop.run() == Trained("top1", 0.5, 0, 3, 9, False)


@pytest.mark.parametrize(("iters", "epochs"), [(1, 1), (3, 1), (4, 2), (7, 3)])
def test_steps_instead_of_epochs(tmp_path, iters, epochs):
    run = Run(tmp_path, iters=iters)
    done = run.loop.run()
    assert (done.steps, done.epochs, done.stopped_early) == (iters, epochs, False)
    assert "validation" in log(run)[-1]


def test_averaged_weights_are_validated_and_kept_and_training_goes_on_with_its_own(tmp_path):
    averaged, plain = Run(tmp_path / "a", ema=0.9), Run(tmp_path / "b", ema=0.0)
    (tmp_path / "a").mkdir(exist_ok=True)
    seen = []
    check = averaged.loop._validate
    averaged.loop._validate = lambda: seen.append(averaged.weights()) or check()
    averaged.loop.run()
    plain.loop.run()
    for name, x in plain.weights().items():
        np.testing.assert_array_equal(averaged.weights()[name], x)
        assert not np.array_equal(seen[-1][name], x)


def test_the_average_is_its_formula(tmp_path):
    run = Run(tmp_path, ema=0.9, save_every=1, epochs=2)
    expected, step, steps = run.weights(), 0, []
    make = run.stepper.step

    def counted(*arguments):
        steps.append(make(*arguments))
        return steps[-1]

    run.stepper.step = counted
    average = run.loop._average

    def followed():
        nonlocal step
        step += 1
        decay = min(0.9, (1 + step) / (10 + step))
        for name, x in run.weights().items():
            expected[name] = decay * expected[name] + (1 - decay) * x
        average()

    run.loop._average = followed
    run.loop.run()
    for name, x in run.loop._ema.items():
        np.testing.assert_allclose(np.array(x), expected[name], atol=1e-6)


def test_the_model_trains_in_training_mode_and_is_validated_in_eval_mode(tmp_path):
    run = Run(tmp_path)
    modes = []
    check = run.loop._validate
    run.loop._validate = lambda: modes.append(run.model.training) or check()
    run.loop.run()
    assert modes == [False] * 3
    assert not np.array_equal(run.weights()["head.norm.running_mean"], np.zeros(8))


class Broken(Data):
    """Gives an infinity in one batch."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def epoch(self, number, start_batch=0):
        for batch, rows in enumerate(super().epoch(number, start_batch), start_batch):
            if (number, batch) == self.at:
                rows.pixels[0, 0] = np.inf
            yield rows


@pytest.mark.parametrize(
    ("at", "kept", "words"),
    [((0, 1), 0, "no epoch had ended yet"), ((2, 1), 1, "the best epoch so far, 1, is kept in ")],
)
def test_a_loss_that_is_not_finite_ends_the_run_with_advice(tmp_path, at, kept, words):
    run = Run(tmp_path, scripted(0.9, 0.1, 0.1), data=Broken(at), schedule="constant", warmup=0.0)
    with pytest.raises(TrainingError) as caught:
        run.loop.run()
    assert len(run.kept) == kept
    step = at[0] * 3 + at[1] + 1
    assert re.match(
        rf"(the loss|the gradient) is (nan|inf) in step {step}, at a learning rate of 0\.02: ",
        str(caught.value),
    )
    for part in ("--learning-rate 0.002", "--warmup", "--max-grad-norm", words):
        assert part in str(caught.value)
    assert all(np.isfinite(x).all() for name, x in run.weights().items() if "running" not in name)


@pytest.mark.parametrize(
    ("loss", "norm", "what"), [(1.0, math.nan, "the gradient is nan"), (1.0, math.inf, "the gradient is inf"),
                               (math.nan, 1.0, "the loss is nan")]
)  # fmt: skip
def test_what_is_not_finite_is_named_and_not_counted(tmp_path, loss, norm, what):
    run = Run(tmp_path)
    run.stepper.step = lambda batches, rate: (loss, norm)
    with pytest.raises(TrainingError, match=f"^{what} in step 1, at a learning rate of "):
        run.loop.run()
    assert run.loop.place.step == 0 and run.saved.read_log() == []


def test_a_validation_that_is_not_finite_ends_the_run_with_the_same_advice(tmp_path):
    def broken():
        raise NonFiniteError("validation gives NaN or infinity")

    with pytest.raises(
        TrainingError, match="validation gives NaN or infinity after step 3, at a learning rate of "
    ):
        Run(tmp_path, broken).loop.run()


def test_a_rehearsal_changes_nothing_and_takes_any_number_of_steps(tmp_path):
    run = Run(tmp_path, ema=0.0)
    before = {name: x for name, x in run.weights().items() if "running" not in name}
    assert 0 < run.loop.rehearse(5) < 10
    assert all(np.array_equal(run.weights()[name], x) for name, x in before.items())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_layers_that_are_computed_twice_give_the_same_gradients(variants, kind):
    gradients = []
    for twice in (False, True):
        mx.random.seed(0)
        encoder = make_model(variants["biases"])
        if kind != "full":
            attach(encoder, AdapterConfig(kind, rank=2))
            for layer in adapted(encoder).values():
                layer.lora_b = mx.random.normal(layer.lora_b.shape)
        encoder.train()
        encoder.encoder.checkpoint_layers = twice
        x = mx.random.normal((2, 56, 56, 3), key=mx.random.key(1))

        def loss(module, x=x):
            return module(x).last_hidden_state[..., :7].sum()

        gradients.append(dict(tree_flatten(nn.value_and_grad(encoder, loss)(encoder)[1])))
    once, again = gradients
    assert once.keys() == again.keys()
    for name in once:
        np.testing.assert_allclose(np.array(once[name]), np.array(again[name]), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_layer_that_is_computed_twice_drops_the_same_twice(variants, kind):
    """The gradient is that of the loss that was computed: the slope along a random way says so."""
    mx.random.seed(0)
    encoder = make_model(variants["fixed"])
    attach(encoder, AdapterConfig(kind, rank=2, dropout=0.3))
    for layer in adapted(encoder).values():
        layer.lora_b = mx.random.normal(layer.lora_b.shape, scale=0.1)
    encoder.train()
    encoder.encoder.checkpoint_layers = True
    x = mx.random.normal((2, 56, 56, 3), key=mx.random.key(1))
    start = dict(tree_flatten(encoder.trainable_parameters()))
    way = {name: mx.random.normal(p.shape, key=mx.random.key(2)) for name, p in start.items()}
    if (
        kind == "dora"
    ):  # its norm counts as a constant: only the lengths have the gradient that the slope shows
        way = {name: x if "magnitude" in name else 0 * x for name, x in way.items()}

    def loss(module):
        return module(x).last_hidden_state[..., :7].sum()

    def along(t):
        encoder.update(tree_unflatten([(name, p + t * way[name]) for name, p in start.items()]))
        mx.random.seed(5)
        return loss(encoder).item()

    mx.random.seed(5)
    _, gradients = nn.value_and_grad(encoder, loss)(encoder)
    slope = sum((g * way[name]).sum().item() for name, g in tree_flatten(gradients))
    measured = (along(5e-3) - along(-5e-3)) / 1e-2
    assert slope == pytest.approx(measured, rel=0.03)
    assert all(layer.dropout.key is None for layer in adapted(encoder).values())


def test_no_class_is_patched_for_it(variants):
    before = EncoderLayer.__call__
    first, second = make_model(variants["fixed"]), make_model(variants["fixed"])
    first.encoder.checkpoint_layers = True
    assert EncoderLayer.__call__ is before and not second.encoder.checkpoint_layers


def test_nothing_was_found(tmp_path: Path):
    """With patience and a metric that is no number the first epoch is kept."""
    done = Run(tmp_path, scripted(math.nan, math.nan, math.nan), epochs=5, patience=2).loop.run()
    assert (done.best_epoch, done.epochs, done.stopped_early) == (0, 3, True)
