"""Weights that are made of trained ones."""

import mlx.core as mx
import numpy as np
import pytest
from drawn_world.derived import POSITION_TABLE, enlarged_tensors, mean_tensors
from drawn_world.untrained import TINY, TINY_VISION, initial_tensors, random_tensors

from mlx_aimv2.errors import InputError
from mlx_aimv2.loading import make_model
from mlx_aimv2.models.vision import sine_cosine_positions


def test_a_larger_pair_is_the_same_but_for_its_positions():
    model = make_model(TINY)
    tensors = initial_tensors(TINY)
    noise = mx.random.normal((16, 64))  # training moves each position, and all of them by
    tensors[POSITION_TABLE] = tensors[POSITION_TABLE] + noise - noise.mean(axis=0) + mx.arange(64)
    model.load_weights(list(tensors.items()))
    found = enlarged_tensors(model, 98)
    expected = sine_cosine_positions(7, 7, 64) + mx.arange(64)
    np.testing.assert_allclose(np.array(found.pop(POSITION_TABLE)), np.array(expected), atol=1e-4)
    assert set(found) | {POSITION_TABLE} == set(tensors)
    for name, x in found.items():
        np.testing.assert_array_equal(np.array(x), np.array(tensors[name]))


def test_the_mean_of_pairs_is_that_of_each_of_their_weights():
    several = [random_tensors(TINY, seed) for seed in (1, 2, 3)]
    models = [make_model(TINY) for _ in several]
    for model, tensors in zip(models, several, strict=True):
        model.load_weights(list(tensors.items()))
    found = mean_tensors(models)
    assert set(found) == set(several[0])
    for name, x in found.items():
        expected = np.mean([np.array(tensors[name]) for tensors in several], axis=0)
        np.testing.assert_allclose(np.array(x), expected, atol=1e-6)


@pytest.mark.parametrize("models", [[], [make_model(TINY), make_model(TINY_VISION)]])
def test_refuses_a_mean_of_nothing_or_of_different_models(models):
    with pytest.raises(InputError, match="the mean needs one model or more with the same parameters"):
        mean_tensors(models)
