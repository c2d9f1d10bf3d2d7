"""The pair that is trained: which of its numbers, its loss, its bounds, and what is refused."""

from __future__ import annotations

import math
import shutil

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import load
from mlx_aimv2.errors import InputError
from mlx_aimv2.events import ignore
from mlx_aimv2.finetuning.caption_task import make_pair_stepper
from mlx_aimv2.finetuning.classifier_model import adapter_config
from mlx_aimv2.finetuning.options import FinetuneOptions
from mlx_aimv2.finetuning.pair_model import build_pair, pair_multipliers
from mlx_aimv2.models.lit import contrastive_loss
from mlx_aimv2.training.losses import contrastive, cross_entropy

OUTSIDE = {"trunk.visual_projection.weight", "trunk.text_projection.weight", "trunk.logit_scale"}


def built(folder, **given):
    options = FinetuneOptions(
        **{"task": "contrastive", **({} if "fine_tune_type" in given else {"rank": 2}), **given}
    )
    model, _ = load(folder, dtype="float32", on_event=ignore)
    contrast = build_pair(model, adapter_config(options), options)
    return contrast, options


def trained(contrast):
    return {name for name, _ in tree_flatten(contrast.trainable_parameters())}


def parts(names):
    """Whether anything in the towers is trained, adapters apart from plain weights."""
    found = set()
    for name in names - OUTSIDE:
        kind = "adapted" if name.rpartition(".")[2] in ("lora_a", "lora_b", "magnitude") else "trained"
        found.add((name.split(".")[1].removesuffix("_model"), kind))
    return found


@pytest.mark.parametrize(
    ("given", "vision", "text"),
    [
        ({}, "adapted", "adapted"),
        ({"fine_tune_type": "dora", "vision_tower": "frozen"}, "frozen", "adapted"),
        ({"text_tower": "frozen"}, "adapted", "frozen"),
        ({"text_tower": "trained"}, "adapted", "trained"),
        ({"fine_tune_type": "full"}, "trained", "trained"),
        ({"fine_tune_type": "full", "vision_tower": "frozen"}, "frozen", "trained"),
    ],
    ids=str,
)
def test_just_what_is_asked_for_is_trained(tiny_pair, given, vision, text):
    contrast, _ = built(tiny_pair, **given)
    names, states = trained(contrast), {"vision": vision, "text": text}
    assert parts(names) == {(tower, state) for tower, state in states.items() if state != "frozen"}
    assert "trunk.logit_scale" in names
    assert ("trunk.visual_projection.weight" in names) == (vision != "frozen")
    assert ("trunk.text_projection.weight" in names) == (text != "frozen")
    contrast.train()
    assert contrast.trunk.vision_model.training == (vision != "frozen")
    assert contrast.trunk.text_model.training == (text != "frozen")
    contrast.eval()
    assert not contrast.trunk.text_model.training


@pytest.mark.parametrize("given", [{}, {"fine_tune_type": "full"}], ids=["lora", "full"])
def test_only_the_last_layers(tiny_pair, given):
    names = trained(built(tiny_pair, num_layers=1, **given)[0])
    layers = {name.split(".encoder.")[1].split(".")[1] for name in names if ".encoder." in name}
    assert layers == {"1"} and not any(".embeddings." in name for name in names)
    assert any(".vision_model.head." in name for name in names) == bool(given)


def inputs(count=4):
    pixels = mx.random.normal((count, 56, 56, 3), key=mx.random.key(1))
    ids = mx.array([[512, 30 + k, 40, 513] for k in range(count)])
    return pixels, ids


def test_the_loss_of_different_captions_is_the_pairs_own(tiny_pair):
    contrast, _ = built(tiny_pair)
    expected = contrast.trunk(inputs()[1], inputs()[0], return_loss=True).loss.item()
    logits = contrast(*inputs())
    total, weight = contrastive(logits, mx.eye(4), mx.ones(4))
    assert (total / weight).item() == pytest.approx(expected, abs=1e-6)
    assert contrastive_loss(logits.T).item() == pytest.approx(expected, abs=1e-6)


def test_equal_captions_share_what_is_right():
    logits = mx.random.normal((3, 3), key=mx.random.key(0))
    targets = mx.array([[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]])
    total, _ = contrastive(logits, targets, mx.ones(3))
    both = [cross_entropy(x, targets, mx.ones(3))[0] for x in (logits, logits.T)]
    assert total.item() == pytest.approx(0.5 * sum(x.item() for x in both), rel=1e-6)


def gradients(contrast, options):
    stepper = make_pair_stepper(contrast, options)
    contrast.train()
    sums, found = stepper._compute(inputs(), mx.eye(4), mx.ones(4))
    return (sums[0] / sums[1]).item(), {name: np.array(x) for name, x in tree_flatten(found)}


def test_computing_layers_twice_changes_nothing(tiny_pair):
    given = {"fine_tune_type": "full"}
    loss, expected = gradients(*built(tiny_pair, **given))
    contrast, options = built(tiny_pair, **given)
    for tower in ("vision_model", "text_model"):
        contrast.trunk[tower].encoder.checkpoint_layers = True
    again, found = gradients(contrast, options)
    assert again == pytest.approx(loss, abs=1e-6)
    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x, atol=1e-5 * max(1, np.abs(x).max()))


def test_a_frozen_tower_gives_the_other_the_same_gradient(tiny_pair):
    _, expected = gradients(*built(tiny_pair, fine_tune_type="full"))
    _, found = gradients(*built(tiny_pair, fine_tune_type="full", vision_tower="frozen"))
    assert set(found) == {n for n in expected if not n.startswith(("trunk.vision", "trunk.visual"))}
    for name, x in found.items():
        np.testing.assert_allclose(x, expected[name], atol=1e-5 * max(1, np.abs(x).max()))


@pytest.mark.parametrize("start", [0.001, 4.6])
def test_the_scale_stays_within_its_bounds_and_keeps_its_gradient(tiny_pair, start):
    contrast, options = built(tiny_pair, optimizer="sgd", max_grad_norm=0.0)
    contrast.trunk.logit_scale = mx.array(start)
    stepper = make_pair_stepper(contrast, options)
    largest = math.log(contrast.trunk.config.max_logit_scale)
    stepper.optimizer.learning_rate = mx.array(1.0)
    for pull in (-5.0, 5.0):
        stepper._apply({"trunk": {"logit_scale": mx.array(-pull)}}, mx.array(1.0))
        assert 0 <= contrast.trunk.logit_scale.item() < largest
    slope = mx.grad(lambda x: mx.exp(mx.clip(x, 0.0, largest)))(contrast.trunk.logit_scale)
    assert slope.item() > 0


def test_rates_by_depth_and_outside_of_the_towers(tiny_pair):
    contrast, options = built(
        tiny_pair, fine_tune_type="full", learning_rate=1e-3, head_lr=5e-3, layer_decay=0.5
    )
    found = pair_multipliers(contrast, options)
    assert {found[name] for name in OUTSIDE} == {5.0}
    for tower in ("vision", "text"):
        start = f"trunk.{tower}_model."
        assert found[f"{start}rms_norm.weight"] == 1
        assert found[f"{start}encoder.layers.1.rms_norm1.weight"] == 0.5
        assert found[f"{start}encoder.layers.0.rms_norm1.weight"] == 0.25
        assert found[f"{start}embeddings.position_embedding.weight"] == 0.125
    assert set(found) == trained(contrast)


def test_gains_and_the_scale_do_not_decay(tiny_pair):
    contrast, options = built(tiny_pair, fine_tune_type="full", weight_decay=0.5, learning_rate=0.1)
    before = dict(tree_flatten(contrast.trainable_parameters()))
    before = {name: np.array(x) for name, x in before.items()}
    stepper = make_pair_stepper(contrast, options)
    stepper.optimizer.learning_rate = mx.array(0.1)
    zeros = {name: mx.zeros(x.shape) for name, x in before.items()}
    from mlx.utils import tree_unflatten

    stepper._apply(tree_unflatten(list(zeros.items())), mx.array(1.0))
    for name, x in tree_flatten(contrast.trainable_parameters()):
        factor = 1.0 if x.ndim < 2 else 0.95
        np.testing.assert_allclose(np.array(x), factor * before[name], rtol=1e-5, atol=1e-8)


def test_what_cannot_be_trained(tiny_pair, tiny_vision):
    with pytest.raises(
        InputError, match=r"--task contrastive trains an image-text pair, and .* is an image encoder"
    ):
        built(tiny_vision)
    with pytest.raises(InputError, match="--num-layers 3: the vision encoder has 2 layers"):
        built(tiny_pair, num_layers=3)
    with pytest.raises(InputError, match="--num-layers 3: the text encoder has 2 layers"):
        built(tiny_pair, num_layers=3, vision_tower="frozen")


def test_packed_weights_are_adapted_and_unpacked_where_they_are_trained(tiny_pair, tmp_path, monkeypatch):
    from mlx_aimv2 import convert
    from mlx_aimv2.conversion.options import ConvertOptions
    from mlx_aimv2.quantization.scheme import Scheme

    convert(tiny_pair, tmp_path / "q", options=ConvertOptions(scheme=Scheme(32, 8)))
    monkeypatch.setattr("mlx_aimv2.loading.on_cpu", lambda: False)  # which would unpack them
    contrast, options = built(tmp_path / "q")
    assert np.isfinite(gradients(contrast, options)[0])
    assert parts(trained(contrast)) == {("vision", "adapted"), ("text", "adapted")}
    contrast, options = built(tmp_path / "q", fine_tune_type="full", text_tower="frozen")
    assert np.isfinite(gradients(contrast, options)[0])
    packed = [path for path, x in contrast.trunk.named_modules() if isinstance(x, nn.QuantizedLinear)]
    assert packed and not any(path.startswith("vision_model.") for path in packed)


@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for a CPU with g++")
def test_compiled_steps_are_the_same_steps(tiny_pair, monkeypatch):
    def weights(stepper, contrast):
        losses = [stepper.step([Pairs(2 + k)], 1e-3)[0] for k in range(4)]  # batches of other sizes too
        return losses, {name: np.array(x) for name, x in tree_flatten(contrast.trainable_parameters())}

    expected, found = [], []
    for results, on_cpu in ((expected, True), (found, False)):
        monkeypatch.setattr("mlx_aimv2.training.step.on_cpu", lambda on_cpu=on_cpu: on_cpu)
        contrast, options = built(tiny_pair, fine_tune_type="full", vision_tower="frozen")
        stepper = make_pair_stepper(contrast.train(), options)
        results += weights(stepper, contrast)
    assert found[0] == pytest.approx(expected[0], abs=1e-4)
    for name, x in expected[1].items():
        np.testing.assert_allclose(found[1][name], x, atol=1e-4)


class Pairs:
    """A batch of so many images and captions."""

    def __init__(self, count):
        self.inputs = tuple(map(np.array, inputs(count)))
        self.targets, self.weights = np.eye(count, dtype=np.float32), np.ones(count, np.float32)
