"""One step: accumulated, clipped, weighted, slowed, refused."""

from __future__ import annotations

import itertools
import math

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from helpers.small import CLASSES, WIDTH, Rows
from mlx.utils import tree_flatten

from mlx_aimv2 import Aimv2VisionConfig, Aimv2VisionModel
from mlx_aimv2.adapters.attach import AdapterConfig, attach
from mlx_aimv2.backend import blas
from mlx_aimv2.backend import streams as backend_streams
from mlx_aimv2.models.classifier import Classifier
from mlx_aimv2.models.classifier_heads import make_head
from mlx_aimv2.models.layers import Dropout
from mlx_aimv2.training import step as step_module
from mlx_aimv2.training.losses import cross_entropy
from mlx_aimv2.training.options import OPTIMIZERS as NAMES
from mlx_aimv2.training.options import WITHOUT_DECAY
from mlx_aimv2.training.step import (
    OPTIMIZERS,
    Stepper,
    checkpointed_layers,
    make_optimizer,
    multipliers,
)


@pytest.fixture
def rows():
    """18 vectors of three classes that can be told apart, each of its own weight."""
    rng = np.random.default_rng(1)
    labels = np.arange(18) % CLASSES
    x = rng.normal(0, 0.3, (18, WIDTH)) + 2 * np.eye(CLASSES, WIDTH)[labels]
    return Rows(
        x.astype(np.float32),
        np.eye(CLASSES, dtype=np.float32)[labels],
        rng.uniform(0.5, 2, 18).astype(np.float32),
    )


def model(seed=0):
    mx.random.seed(seed)
    made = nn.Sequential(nn.Linear(WIDTH, 8), nn.GELU(), nn.Linear(8, CLASSES))
    mx.eval(made.parameters())
    return made


def parameters(module):
    return {name: np.array(x) for name, x in tree_flatten(module.parameters())}


def stepper(optimizer="adamw", decay=0.01, **options):
    return Stepper(model(), OPTIMIZERS[optimizer](decay), cross_entropy, **options)


def test_every_optimizer_that_can_be_asked_for_is_there():
    assert tuple(OPTIMIZERS) == NAMES


@pytest.mark.parametrize("cuts", [(4, 8, 12, 16), (16,), (1, 2, 3, 17)])
def test_batches_of_any_size_make_the_step_of_one_large_batch(rows, cuts):
    """With sgd, whose step is the gradient itself; the last batch is smaller than the others."""
    whole, parts = stepper("sgd", max_grad_norm=0.3), stepper("sgd", max_grad_norm=0.3)
    edges = [0, *cuts, 18]
    pieces = [rows[first:last] for first, last in itertools.pairwise(edges) if first < last]
    expected, found = whole.step([rows], 0.1), parts.step(pieces, 0.1)
    assert found == pytest.approx(expected, rel=1e-5)
    for name, x in parameters(whole.model).items():
        np.testing.assert_allclose(parameters(parts.model)[name], x, atol=1e-6)


def test_a_image_of_weight_two_counts_as_two(rows):
    double = Rows(*(np.concatenate([x, x[:1]]) for x in (rows.pixels, rows.targets)), np.ones(19, np.float32))
    weighted = Rows(rows.pixels, rows.targets, np.array([2.0, *[1.0] * 17], dtype=np.float32))
    assert stepper().step([double], 0.1) == pytest.approx(stepper().step([weighted], 0.1), rel=1e-5)


def test_the_loss_is_the_weighted_mean_and_the_norm_that_of_its_gradient(rows):
    made = stepper()
    logits = np.array(made.model(mx.array(rows.pixels)), dtype=np.float64)
    logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -((rows.targets * logarithms).sum(axis=1) * rows.weights).sum() / rows.weights.sum()

    def mean(module):
        total, weight = cross_entropy(
            module(mx.array(rows.pixels)), mx.array(rows.targets), mx.array(rows.weights)
        )
        return total / weight

    _, gradients = nn.value_and_grad(made.model, mean)(made.model)
    norm = math.sqrt(sum(float(mx.square(g).sum()) for _, g in tree_flatten(gradients)))
    assert made.step([rows], 0.1) == pytest.approx((expected, norm), rel=1e-5)


@pytest.mark.parametrize(("most", "expected"), [(0.05, 0.05), (1e3, None), (0.0, None)])
def test_clipping_shortens_a_step_to_its_norm(rows, most, expected):
    made = stepper("sgd", decay=0.0, max_grad_norm=most)
    before = parameters(made.model)
    _, norm = made.step([rows], 1.0)
    way = math.sqrt(sum(np.square(x - before[name]).sum() for name, x in parameters(made.model).items()))
    assert way == pytest.approx(expected or norm, rel=1e-4)


def test_a_step_of_adamw_is_its_formula(rows):
    """Loshchilov and Hutter 2019, algorithm 2, with bias correction; two steps at two learning rates."""
    made, decay = stepper("adamw", decay=0.1), 0.1
    expected = parameters(made.model)
    m = {name: np.zeros_like(x) for name, x in expected.items()}
    v = {name: np.zeros_like(x) for name, x in expected.items()}
    for step, rate in enumerate((0.02, 0.01), 1):

        def mean(module):
            total, weight = cross_entropy(
                module(mx.array(rows.pixels)), mx.array(rows.targets), mx.array(rows.weights)
            )
            return total / weight

        _, gradients = nn.value_and_grad(made.model, mean)(made.model)
        for name, g in tree_flatten(gradients):
            g = np.array(g)
            m[name] = 0.9 * m[name] + 0.1 * g
            v[name] = 0.999 * v[name] + 0.001 * g * g
            update = m[name] / (1 - 0.9**step) / (np.sqrt(v[name] / (1 - 0.999**step)) + 1e-8)
            expected[name] = expected[name] * (1 - rate * decay) - rate * update
        made.step([rows], rate)
        for name, x in parameters(made.model).items():
            np.testing.assert_allclose(x, expected[name], atol=2e-6)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(rows, optimizer):
    made = stepper(optimizer, max_grad_norm=1.0)
    rate = {"sgd": 0.1, "muon": 0.02, "adagrad": 0.1, "adadelta": 10.0}.get(optimizer, 0.01)
    losses = [made.step([rows], rate)[0] for _ in range(40)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_multiplier_is_a_learning_rate_of_its_own(rows, optimizer):
    slow = stepper(optimizer, multipliers={"layers.0.weight": 0.25, "layers.0.bias": 1.0})
    full, quarter = stepper(optimizer), stepper(optimizer)
    for made, rate in ((slow, 0.01), (full, 0.01), (quarter, 0.0025)):
        made.step([rows], rate)
    for name, x in parameters(slow.model).items():
        like = quarter if name == "layers.0.weight" else full
        np.testing.assert_allclose(x, parameters(like.model)[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weight_decay_is_what_the_options_think_that_it_is(rows, optimizer):
    ways = [stepper(optimizer, decay) for decay in (0.0, 0.5)]
    for made in ways:
        made.step([rows], 0.01)
    same = np.array_equal(*(parameters(made.model)["layers.0.weight"] for made in ways))
    assert same == (optimizer in WITHOUT_DECAY)


@pytest.mark.parametrize("optimizer", [name for name in OPTIMIZERS if name not in WITHOUT_DECAY])
def test_vectors_do_not_decay_and_matrices_do(rows, optimizer):
    with_decay, without = (
        Stepper(model(), make_optimizer(optimizer, decay), cross_entropy) for decay in (0.5, 0.0)
    )
    for made in (with_decay, without):
        for path in ("layers.0.bias", "layers.2.bias"):
            layer = made.model.layers[int(path.split(".")[1])]
            layer.bias = layer.bias + 1
        made.step([rows], 0.01)
    for name, x in parameters(with_decay.model).items():
        assert np.array_equal(x, parameters(without.model)[name]) == name.endswith("bias")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_changes_nothing(rows, value):
    made = stepper()
    made.step([rows], 0.01)
    before, state = parameters(made.model), [np.array(x) for _, x in tree_flatten(made.optimizer.state)]
    broken = rows[:4]
    broken.pixels = broken.pixels.copy()
    broken.pixels[0, 0] = value
    loss, norm = made.step([rows, broken], 0.01)
    assert not (np.isfinite(loss) and np.isfinite(norm))
    assert all(np.array_equal(x, before[name]) for name, x in parameters(made.model).items())
    for found, expected in zip(tree_flatten(made.optimizer.state), state, strict=True):
        np.testing.assert_array_equal(np.array(found[1]), expected)


def test_a_gradient_that_is_not_finite_changes_nothing_though_the_loss_is(rows):
    """The square root of 0 has an infinite slope, and infinity times 0 is NaN."""

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = mx.zeros((3, 3))

        def __call__(self, x):
            return mx.sqrt(x[:, :3] * 0 @ self.weight)

    made = Stepper(Root(), OPTIMIZERS["adamw"](0.1), cross_entropy, max_grad_norm=1.0)
    state = [np.array(x) for _, x in tree_flatten(made.optimizer.state)]
    loss, norm = made.step([rows], 0.01)
    assert np.isfinite(loss) and np.isnan(norm)
    np.testing.assert_array_equal(np.array(made.model.weight), np.zeros((3, 3)))
    for found, expected in zip(tree_flatten(made.optimizer.state), state, strict=True):
        np.testing.assert_array_equal(np.array(found[1]), expected)


def test_what_is_frozen_stays(rows):
    module = model()
    module.layers[0].freeze()
    before = parameters(module)
    Stepper(module, OPTIMIZERS["adamw"](0.1), cross_entropy).step([rows], 0.1)
    changed = {name for name, x in parameters(module).items() if not np.array_equal(x, before[name])}
    assert changed == {"layers.2.weight", "layers.2.bias"}


def test_learning_rates_of_layers():
    paths = [
        "trunk.embeddings.patch_embed.weight",
        "trunk.encoder.layers.0.attention.q_proj.weight",
        "trunk.encoder.layers.2.ffn.up_proj.lora_a",
        "trunk.rms_norm.weight",
        "head.linear.weight",
    ]
    found = multipliers(paths, layers=3, layer_decay=0.5, head=10.0)
    assert list(found.values()) == [0.5**4, 0.5**3, 0.5, 1, 10.0]


def test_the_learning_rate_is_that_of_the_step(rows):
    made = stepper()
    made.step([rows], 0.0)
    assert isinstance(made.optimizer, optim.AdamW)
    assert all(np.array_equal(x, parameters(model())[name]) for name, x in parameters(made.model).items())


def test_gradient_checkpointing_ends_with_its_block():
    encoder = nn.Module()
    encoder.checkpoint_layers = False
    outer = nn.Sequential(encoder)
    with pytest.raises(ZeroDivisionError), checkpointed_layers(outer, True):
        assert encoder.checkpoint_layers
        raise ZeroDivisionError
    assert not encoder.checkpoint_layers


@pytest.fixture(params=["compiled", "not compiled"])
def divided(monkeypatch, request):
    """Steps of models that are divided over three streams; a call returns how often work was evaluated together."""
    counts = []

    def evaluate_together(groups):
        counts.append(len(groups))
        backend_streams.evaluate_together(groups)

    if request.param == "not compiled":
        monkeypatch.setattr(step_module, "cpu_compiles", lambda: False)
    elif not step_module.cpu_compiles():
        pytest.skip("no compiler")
    monkeypatch.setattr(step_module, "FROZEN", 1)
    monkeypatch.setattr(step_module, "evaluate_together", evaluate_together)
    monkeypatch.setattr(backend_streams, "ELEMENTS", 1)
    monkeypatch.setattr(blas, "_division", lambda: blas._Division(3, 1))
    return counts


def adapted(drop=0.0):
    """A model of which the first layer is frozen."""
    mx.random.seed(0)
    made = nn.Sequential(nn.Linear(WIDTH, 8), Dropout(drop), nn.Linear(8, CLASSES))
    mx.eval(made.parameters())
    made.layers[0].freeze()
    return made


def test_a_divided_step_is_the_step_of_the_whole_batch(rows, divided):
    whole, parts = (
        Stepper(adapted(), OPTIMIZERS["sgd"](0.0), cross_entropy, by_example=by_example)
        for by_example in (False, True)
    )
    for batches in ([rows], [rows[:7], rows[7:]], [rows[:2]]):
        assert parts.step(batches, 0.1) == pytest.approx(whole.step(batches, 0.1), rel=1e-5)
    assert divided == [3, 3, 3, 2]
    for name, x in parameters(whole.model).items():
        np.testing.assert_allclose(parameters(parts.model)[name], x, atol=1e-6)


def test_one_example_is_not_divided(rows, divided):
    made = Stepper(adapted(), OPTIMIZERS["sgd"](0.0), cross_entropy, by_example=True)
    whole = Stepper(adapted(), OPTIMIZERS["sgd"](0.0), cross_entropy)
    assert made.step([rows[:1]], 0.1) == pytest.approx(whole.step([rows[:1]], 0.1), rel=1e-5)
    assert divided == []


def test_dropout_of_a_divided_step_follows_from_the_seed(rows, divided):
    """The same numbers are dropped by two steppers, and others in each step."""
    twins = [Stepper(adapted(0.5), OPTIMIZERS["sgd"](0.0), cross_entropy, by_example=True) for _ in range(2)]
    same = Rows(*(np.repeat(x[:1], 3, axis=0) for x in (rows.pixels, rows.targets, rows.weights)))
    found = []
    for made in twins:
        mx.random.seed(7)
        found.append([made.step([same], 0.0) for _ in range(4)])
    assert found[0] == found[1] and len(set(found[0])) > 1
    assert divided == [3] * 8


@pytest.mark.parametrize("divided", ["not compiled"], indirect=True)
@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("checkpointed", [True, False])
def test_a_divided_step_of_adapters_is_that_of_the_whole_batch(divided, kind, checkpointed):
    config = Aimv2VisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28
    )
    rng = np.random.default_rng(0)
    batch = Rows(
        rng.normal(size=(5, 28, 28, 3)).astype(np.float32),
        np.eye(CLASSES, dtype=np.float32)[np.arange(5) % CLASSES],
        rng.uniform(0.5, 2, 5).astype(np.float32),
    )
    results = []
    for by_example in (False, True):
        mx.random.seed(0)
        trunk = Aimv2VisionModel(config)
        attach(trunk, AdapterConfig(type=kind, rank=2))
        made = Classifier(trunk, make_head({"kind": "linear"}, 16, CLASSES), "mean").train()
        mx.eval(made.parameters())
        stepper = Stepper(made, OPTIMIZERS["sgd"](0.0), cross_entropy, by_example=by_example)
        with checkpointed_layers(made, checkpointed):
            found = [stepper.step([batch], 0.5) for _ in range(2)]
        results.append((found, parameters(made)))
    (expected, whole), (found, parts) = results
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert divided == [3, 3]
    for name, x in whole.items():
        np.testing.assert_allclose(parts[name], x, atol=1e-5)


@pytest.mark.parametrize("by_example", [True, False])
def test_only_large_frozen_models_are_divided(rows, divided, monkeypatch, by_example):
    monkeypatch.setattr(step_module, "FROZEN", 8 * WIDTH + 8 + by_example)
    made = Stepper(adapted(), OPTIMIZERS["sgd"](0.0), cross_entropy, by_example=by_example)
    made.step([rows], 0.1)
    assert divided == []
