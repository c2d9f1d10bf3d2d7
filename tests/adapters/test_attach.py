"""Adapters in whole models."""

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import load
from mlx_aimv2.adapters.attach import (
    TARGETS,
    AdapterConfig,
    adapted,
    attach,
    count_trainable,
    fuse,
    linears,
    replace_module,
)
from mlx_aimv2.adapters.lora import DoRALinear, LoRALinear
from mlx_aimv2.errors import InputError
from mlx_aimv2.loading import make_model
from mlx_aimv2.models.classifier import Classifier
from mlx_aimv2.models.classifier_heads import make_head


@pytest.fixture
def model(variants):
    return make_model(variants["fixed"]).eval()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"type": "ia3"}, "adapter type 'ia3' is not one of lora, dora"),
        ({"rank": 0}, "rank must be a whole number from 1 to 16384, not 0"),
        ({"rank": True}, "rank must be a whole number from 1 to 16384, not True"),
        ({"rank": 4.0}, "rank must be a whole number"),
        ({"alpha": 0}, "alpha must be a finite number above 0, not 0"),
        ({"alpha": float("inf")}, "alpha must be a finite number above 0, not inf"),
        ({"alpha": float("nan")}, "alpha must be a finite number above 0, not nan"),
        ({"dropout": 1}, "dropout must be a number from 0 to below 1, not 1"),
        ({"dropout": "0.1"}, "dropout must be a number from 0 to below 1, not '0.1'"),
        ({"num_layers": 0}, "num_layers must be a whole number of at least 1, or None for all, not 0"),
        ({"target_modules": ()}, "target_modules must name at least one of q, k, v, out, gate, up, down"),
        ({"target_modules": "q"}, "target_modules must name at least one of"),
        (
            {"target_modules": ("q", "query")},
            "target module 'query' is not one of q, k, v, out, gate, up, down",
        ),
        ({"target_modules": ("head.q_proj",)}, "target module 'head.q_proj' is not one of"),
    ],
)
def test_values_no_adapter_could_have_are_refused(values, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        AdapterConfig(**values)


def test_every_target_of_every_layer(model):
    paths = attach(model, AdapterConfig(rank=2))
    assert paths == [f"encoder.layers.{n}.{target}" for n in range(2) for target in TARGETS.values()]
    assert list(adapted(model)) == sorted(paths, key=lambda path: (path.split(".")[2], path))
    assert not any(path.startswith("encoder.layers") for path in linears(model))


def test_only_some_targets_of_the_last_layers(model):
    paths = attach(model, AdapterConfig(type="dora", rank=2, num_layers=1, target_modules=("q", "down")))
    assert paths == ["encoder.layers.1.attention.q_proj", "encoder.layers.1.ffn.down_proj"]
    assert {type(layer) for layer in adapted(model).values()} == {DoRALinear}


def test_only_adapters_are_trained(model):
    before = count_trainable(model)
    assert before == sum(x.size for _, x in tree_flatten(model.parameters()))
    attach(model, AdapterConfig(rank=2, target_modules=("q",)))
    assert count_trainable(model) == 2 * 2 * (64 + 64)
    assert all(".lora_" in name for name, _ in tree_flatten(model.trainable_parameters()))


def test_the_head_of_a_classifier_is_left_to_train(model):
    classifier = Classifier(model, make_head({"kind": "linear"}, 64, 3), "mean")
    paths = attach(classifier, AdapterConfig(rank=2, target_modules=("q",)))
    assert paths[0] == "encoder.layers.0.attention.q_proj"
    names = {name.split(".")[0] for name, _ in tree_flatten(classifier.trainable_parameters())}
    assert names == {"trunk", "head"}
    assert all("lora" in n for n, _ in tree_flatten(classifier.trunk.trainable_parameters()))


def test_of_a_pair_the_towers_named(variants):
    for towers, prefixes in [
        (("vision",), {"vision_model"}),
        (("text",), {"text_model"}),
        (("text", "vision"), {"vision_model", "text_model"}),
    ]:
        pair = make_model(variants["lit"])
        paths = attach(pair, AdapterConfig(rank=2), towers)
        assert {path.split(".")[0] for path in paths} == prefixes


def test_a_tower_that_is_not_there_is_refused(model, variants):
    with pytest.raises(InputError, match="this model has no tower 'text', only vision"):
        attach(model, AdapterConfig(), ("text",))
    with pytest.raises(InputError, match="this model has no tower 'audio', only vision, text"):
        attach(make_model(variants["lit"]), AdapterConfig(), ("audio",))


def test_more_layers_than_there_are_are_refused(model):
    with pytest.raises(InputError, match="num_layers is 3, and the encoder has 2 layers"):
        attach(model, AdapterConfig(num_layers=3))
    assert not adapted(model)


def test_two_adapters_are_refused(model):
    attach(model, AdapterConfig(rank=2))
    with pytest.raises(InputError, match="the model has adapters already: fuse them first"):
        attach(model, AdapterConfig(rank=2))


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_what_is_fused_computes_the_same(model, pixels, trained, kind):
    names = dict(tree_flatten(model.parameters())).keys()
    attach(model, AdapterConfig(type=kind, rank=2))
    before = trained(model)(pixels).last_hidden_state
    fuse(model)
    assert dict(tree_flatten(model.parameters())).keys() == names
    assert mx.allclose(model(pixels).last_hidden_state, before, atol=1e-4)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_packed_weights_are_trained_on_and_fused(model, pixels, trained, kind):
    nn.quantize(model.encoder, group_size=32, bits=8)
    attach(model, AdapterConfig(type=kind, rank=2))
    names = {name.rpartition(".")[2] for name, _ in tree_flatten(model.trainable_parameters())}
    assert names == {"lora_a", "lora_b"} | ({"magnitude"} if kind == "dora" else set())

    def loss(model):
        return mx.square(model(pixels).last_hidden_state).mean()

    model.train()
    _, gradients = nn.value_and_grad(model, loss)(model)
    assert all(mx.isfinite(x).all() for _, x in tree_flatten(gradients))
    before = trained(model.eval())(pixels).last_hidden_state
    fuse(model, dequantize=True)
    assert mx.allclose(model(pixels).last_hidden_state, before, atol=1e-3)
    assert type(model.encoder.layers[0].attention.q_proj) is nn.Linear


def test_training_and_evaluating_reach_the_adapters(model):
    model.train()
    attach(model, AdapterConfig(rank=2, dropout=0.5))
    assert all(layer.training and layer.dropout.training for layer in adapted(model).values())
    model.eval()
    assert not any(layer.training or layer.dropout.training for layer in adapted(model).values())


def test_an_attached_model_learns(tiny_vision, pixels):
    import mlx.optimizers as optim

    mx.random.seed(0)
    model, _ = load(tiny_vision, dtype="float32")
    attach(model, AdapterConfig(type="dora", rank=2))
    model.train()
    optimizer, target = optim.Adam(2e-3), mx.random.normal((2, 64), key=mx.random.key(4))

    def loss(model):
        return mx.square(model(pixels).last_hidden_state.mean(axis=1) - target).mean()

    step = nn.value_and_grad(model, loss)
    losses = []
    for _ in range(15):
        value, gradients = step(model)
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        losses.append(value.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_compiled_step_is_the_same_step(model, pixels, trained, kind):
    attach(model, AdapterConfig(type=kind, rank=2))
    step = nn.value_and_grad(
        trained(model).train(), lambda: mx.square(model(pixels).last_hidden_state).mean()
    )
    compiled = mx.compile(step, inputs=model.state, outputs=model.state)
    expected, found = step(), compiled()
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-5)
    for (name, x), (_, y) in zip(tree_flatten(expected[1]), tree_flatten(found[1]), strict=True):
        assert mx.allclose(x, y, atol=1e-5, rtol=1e-3), name


def test_a_module_is_put_where_its_path_says(model):
    replace_module(model, "encoder.layers.1.ffn.up_proj", LoRALinear(nn.Linear(64, 128)))
    assert list(adapted(model)) == ["encoder.layers.1.ffn.up_proj"]
