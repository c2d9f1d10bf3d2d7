"""Every pooling against the model's own outputs."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2.errors import InputError
from mlx_aimv2.inference.pooling import CHOICES, check_pooling, pool

BY_HAND = {
    "mean": lambda output: output.last_hidden_state.mean(axis=1),
    "max": lambda output: output.last_hidden_state.max(axis=1),
    "head": lambda output: output.pooler_output,
    "tokens": lambda output: output.last_hidden_state.reshape(2, 4, 4, -1),
}


@pytest.fixture
def pixel_values():
    return mx.random.normal((2, 56, 56, 3), key=mx.random.key(0))


@pytest.mark.parametrize("pooling", BY_HAND)
def test_a_pair_pools_the_tokens_of_its_vision_encoder(pair, pixel_values, pooling):
    model, _ = pair
    expected = BY_HAND[pooling](model.vision_model(pixel_values))
    np.testing.assert_array_equal(np.array(pool(model, pixel_values, pooling)), np.array(expected))


@pytest.mark.parametrize("pooling", ["mean", "max", "tokens"])
def test_a_vision_encoder_pools_its_own_tokens(vision, pixel_values, pooling):
    model, _ = vision
    expected = BY_HAND[pooling](model(pixel_values))
    np.testing.assert_array_equal(np.array(pool(model, pixel_values, pooling)), np.array(expected))


def test_projected_is_what_get_image_features_gives(pair, pixel_values):
    model, _ = pair
    expected = np.array(model.get_image_features(pixel_values))
    np.testing.assert_array_equal(np.array(pool(model, pixel_values, "projected")), expected)


def test_the_grid_has_rows_first_and_columns_second(native):
    model, _ = native
    pixels = mx.random.normal((1, 14 * 3, 14 * 5, 3), key=mx.random.key(1))
    grid, tokens = pool(model, pixels, "tokens"), model(pixels).last_hidden_state
    assert grid.shape == (1, 3, 5, 64)
    np.testing.assert_array_equal(np.array(grid[0, 1, 2]), np.array(tokens[0, 1 * 5 + 2]))


@pytest.mark.parametrize("pooling", ["projected", *CHOICES[1:]])
def test_vectors_are_float32_whatever_the_weights_are(pair, pixel_values, pooling):
    model, _ = pair
    model.set_dtype(mx.bfloat16)
    assert pool(model, pixel_values, pooling).dtype == mx.float32


@pytest.mark.parametrize(
    ("kind", "expected"), [("pair", "projected"), ("vision", "mean"), ("native", "mean")]
)
def test_auto_is_what_suits_the_checkpoint(request, kind, expected):
    model, _ = request.getfixturevalue(kind)
    assert check_pooling(model, "auto") == expected


@pytest.mark.parametrize("pooling", [choice for choice in CHOICES if choice != "auto"])
def test_a_pair_can_do_every_choice(pair, pooling):
    assert check_pooling(pair[0], pooling) == pooling


@pytest.mark.parametrize("pooling", ["projected", "cls", "", "Mean"])
def test_names_that_are_no_choice_are_refused(pair, pooling):
    message = f"pooling {pooling!r} is not one of auto, mean, max, head, tokens"
    with pytest.raises(InputError, match=message):
        check_pooling(pair[0], pooling)


def test_a_head_is_refused_where_there_is_none(vision):
    with pytest.raises(InputError, match="pooling head: this checkpoint has no pooling head"):
        check_pooling(vision[0], "head")


@pytest.mark.parametrize(
    ("pooling", "message"), [("head", "no pooling head"), ("projected", "no projection")]
)
def test_pooling_without_the_check_is_refused_too(vision, pixel_values, pooling, message):
    with pytest.raises(InputError, match=f"this checkpoint has {message}"):
        pool(vision[0], pixel_values, pooling)
