"""Encoders with a classification head."""

from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2.errors import InputError
from mlx_aimv2.models.classifier import Classifier
from mlx_aimv2.models.classifier_heads import (
    make_head,
)
from mlx_aimv2.models.vision import Aimv2VisionModel


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


def names(parameters):
    return {name for name, _ in tree_flatten(parameters)}


def make(variants, variant="fixed", pooling="mean", **spec):
    mx.random.seed(1)
    config = variants[variant]
    head = make_head(
        {"kind": "attentive" if pooling == "attentive" else "linear", **spec}, config.hidden_size, 3
    )
    classifier = Classifier(Aimv2VisionModel(config), head, pooling)
    classifier.eval()
    return classifier


def test_mean_features_are_the_mean_of_the_normed_tokens(variants):
    classifier, pixels = make(variants), normal(2, 56, 56, 3)
    tokens = classifier.trunk(pixels).last_hidden_state
    features = classifier.features(pixels)
    assert (features.shape, features.dtype) == ((2, 64), mx.float32)
    np.testing.assert_allclose(np.array(features), np.array(tokens).mean(axis=1), atol=1e-6)


def test_head_features_are_the_pooler_output(variants):
    classifier, pixels = make(variants, "head", "head"), normal(2, 56, 56, 3)
    expected = classifier.trunk(pixels).pooler_output
    np.testing.assert_array_equal(np.array(classifier.features(pixels)), np.array(expected))


def test_attentive_features_are_all_tokens(variants):
    assert make(variants, pooling="attentive").features(normal(2, 56, 56, 3)).shape == (2, 16, 64)


@pytest.mark.parametrize("pooling", ["mean", "attentive"])
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=str)
def test_logits_are_float32_whatever_the_trunk_computes_in(variants, pooling, dtype):
    classifier = make(variants, pooling=pooling)
    classifier.trunk.set_dtype(dtype)
    logits = classifier(normal(2, 56, 56, 3))
    assert (logits.shape, logits.dtype) == ((2, 3), mx.float32)


def test_a_fresh_classifier_has_no_labels_and_one_of_each(variants):
    classifier = make(variants)
    assert (classifier.labels, classifier.multi_label) == ((), False)
    classifier.labels, classifier.task = ("a", "b", "c"), "multi-label"
    assert (classifier.labels, classifier.multi_label) == (("a", "b", "c"), True)


@pytest.mark.parametrize("compiled", [False, True])
def test_training_learns_and_moves_the_averages(variants, compiled):
    classifier = make(variants, pooling="attentive", heads=4)
    classifier.labels = ("a", "b", "c")
    classifier.train()
    optimizer, state = optim.AdamW(1e-2), None
    pixels, targets = normal(4, 56, 56, 3), mx.array([0, 1, 2, 0])
    gradients = nn.value_and_grad(
        classifier, lambda model, x, y: nn.losses.cross_entropy(model(x), y, reduction="mean")
    )

    def step(x, y):
        loss, found = gradients(classifier, x, y)
        optimizer.update(classifier, found)
        return loss

    if compiled:
        state = [classifier.state, optimizer.state]
        step = partial(mx.compile, inputs=state, outputs=state)(step)
    losses = [step(pixels, targets).item() for _ in range(4)]
    assert losses[-1] < losses[0] / 2
    assert np.abs(np.array(classifier.head.norm.running_mean)).max() > 0


@pytest.mark.parametrize(
    ("pooling", "kind", "message"),
    [
        ("max", "linear", "pooling 'max' is not one of mean, head, attentive"),
        ("head", "linear", "pooling head: this checkpoint has no pooling head"),
        ("attentive", "linear", "pooling attentive needs an attentive head"),
        ("mean", "attentive", "an attentive head pools by itself: use pooling attentive, not mean"),
    ],
)
def test_heads_and_poolings_that_do_not_go_together(variants, pooling, kind, message):
    with pytest.raises(InputError, match=message):
        Classifier(Aimv2VisionModel(variants["fixed"]), make_head({"kind": kind}, 64, 3), pooling)


def test_a_wrong_input_is_refused_as_by_the_encoder(variants):
    with pytest.raises(InputError, match="this model takes 56 x 56 pixels, not 70 x 70"):
        make(variants)(normal(1, 70, 70, 3))
