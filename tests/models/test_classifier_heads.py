"""Classification heads."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2.errors import InputError
from mlx_aimv2.models.classifier_heads import (
    AttentiveHead,
    FeatureNorm,
    KnnHead,
    LinearHead,
    head_spec,
    make_head,
)

SPECS = [
    {"kind": "linear", "batch_norm": False},
    {"kind": "linear", "batch_norm": True},
    {"kind": "attentive", "heads": 4, "queries": 3},
    {"kind": "knn", "neighbours": 3, "size": 5},
]


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


def names(parameters):
    return {name for name, _ in tree_flatten(parameters)}


def test_a_linear_head_is_a_matrix_and_a_bias():
    head, x = LinearHead(8, 3), normal(4, 8)
    expected = np.array(x) @ np.array(head.linear.weight).T + np.array(head.linear.bias)
    np.testing.assert_allclose(np.array(head(x)), expected, atol=1e-6)


def test_a_fresh_layer_is_normal_with_small_deviation_and_no_bias():
    head = LinearHead(1000, 100)
    assert np.array(head.linear.weight).std() == pytest.approx(0.01, rel=0.05)
    assert not np.array(head.linear.bias).any()


def test_an_attentive_head_equals_the_formula_in_numpy():
    head, tokens = AttentiveHead(8, 3, heads=2, queries=2), np.array(normal(2, 5, 8))
    head.cls_token = normal(1, 2, 8, seed=3)
    head.norm.running_mean, head.norm.running_var = normal(8, seed=4), mx.arange(1, 9) / 4
    head.linear.bias = mx.array([1.0, 2.0, 3.0])
    head.eval()
    normed = (tokens - np.array(head.norm.running_mean)) / np.sqrt(np.array(head.norm.running_var) + 1e-6)
    k, v = (normed @ np.array(p.weight).T for p in (head.k_proj, head.v_proj))
    found = np.zeros((2, 2, 8))
    for b in range(2):
        for query in range(2):
            for part in (slice(0, 4), slice(4, 8)):
                scores = k[b, :, part] @ np.array(head.cls_token)[0, query, part] / 2
                weights = np.exp(scores) / np.exp(scores).sum()
                found[b, query, part] = weights @ v[b, :, part]
    expected = found.mean(axis=1) @ np.array(head.linear.weight).T + np.array(head.linear.bias)
    np.testing.assert_allclose(np.array(head(mx.array(tokens))), expected, rtol=1e-4, atol=1e-5)


def test_the_norm_uses_the_batch_in_training_and_its_averages_in_eval():
    norm, x = FeatureNorm(4), np.array(normal(6, 5, 4)) * 3 + 2
    flat = x.reshape(-1, 4)
    found = np.array(norm(mx.array(x)))
    np.testing.assert_allclose(found, (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-6), atol=1e-5)
    mean, variance = 0.1 * flat.mean(0), 0.9 + 0.1 * flat.var(0, ddof=1)
    np.testing.assert_allclose(np.array(norm.running_mean), mean, rtol=1e-4)
    np.testing.assert_allclose(np.array(norm.running_var), variance, rtol=1e-4)
    norm.eval()
    np.testing.assert_allclose(
        np.array(norm(mx.array(x))), (x - mean) / np.sqrt(variance + 1e-6), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(np.array(norm.running_mean), mean, rtol=1e-4)  # eval leaves them


def test_one_vector_has_no_variance_and_changes_no_averages():
    norm = FeatureNorm(3)
    np.testing.assert_allclose(np.array(norm(mx.array([[1.0, 2.0, 3.0]]))), [[1, 2, 3]], rtol=1e-5)
    assert norm.running_var.tolist() == [1, 1, 1]


@pytest.mark.parametrize("spec", SPECS[1:3], ids=str)
def test_running_averages_are_saved_and_never_trained(spec):
    head = make_head(spec, 8, 3)
    head.freeze()
    head.unfreeze()
    averages = {"norm.running_mean", "norm.running_var"}
    assert averages <= names(head.parameters())
    assert not averages & names(head.trainable_parameters())


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_head_is_made_again_from_its_description(spec):
    head = make_head(spec, 8, 3)
    assert head_spec(head) == spec
    again = make_head(head_spec(head), 8, 3)
    again.load_weights(tree_flatten(head.parameters()))
    x = normal(2, 5, 8) if spec["kind"] == "attentive" else normal(2, 8)
    for one in (head, again):
        one.eval()
    np.testing.assert_array_equal(np.array(head(x)), np.array(again(x)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "cubic"}, "head 'cubic' is not one of linear, attentive"),
        ({}, "head None is not one of linear, attentive"),
        ({"kind": "linear", "heads": 2}, "a head of kind linear has no setting 'heads', only batch_norm"),
        ({"kind": "attentive", "heads": 3}, "an attentive head of 3 heads does not divide the width 8"),
        ({"kind": "attentive", "heads": 0}, "an attentive head of 0 heads does not divide the width 8"),
        ({"kind": "attentive", "queries": 0}, "an attentive head needs at least one query, not 0"),
        ({"kind": "attentive", "heads": "4"}, "heads of the attentive head is '4', not int"),
        ({"kind": "linear", "batch_norm": 1}, "batch_norm of the linear head is 1, not bool"),
    ],
)
def test_descriptions_that_are_refused(spec, message):
    with pytest.raises(InputError, match=message):
        make_head(spec, 8, 3)


def test_no_classes_are_refused():
    with pytest.raises(InputError, match="a head needs at least one class, not 0"):
        make_head({"kind": "linear"}, 8, 0)


def test_an_unknown_module_has_no_description():
    with pytest.raises(InputError, match="a head of type ReLU has no description"):
        head_spec(nn.ReLU())


def test_the_bank_of_neighbours_is_of_unit_length_so_that_long_features_have_no_more_votes():
    features = np.array([[10.0, 0.0], [0.0, 0.1], [0.03, 0.1]], dtype=np.float32)
    head = KnnHead.of(features, np.eye(3, dtype=np.float32), neighbours=3)
    np.testing.assert_allclose(np.linalg.norm(np.array(head.bank), axis=1), 1, atol=1e-6)
    cosines = np.array([[0.6, 0.8, 0.6 * 0.287348 + 0.8 * 0.957826]])
    weights = np.exp(cosines / 0.07)
    expected = np.log(weights / weights.sum())
    for scale in (1.0, 50.0):
        found = np.array(head(mx.array([[0.6 * scale, 0.8 * scale]])))
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_eps_of_the_feature_norm_is_that_of_aim():
    norm = FeatureNorm(2)
    norm.eval()
    norm.running_var = mx.zeros((2,))
    np.testing.assert_allclose(np.array(norm(mx.ones((1, 2)))), 1e-6**-0.5, rtol=1e-6)
