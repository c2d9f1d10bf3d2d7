"""What training from scratch begins with."""

import mlx.core as mx
import numpy as np
from drawn_world.derived import POSITION_TABLE
from drawn_world.untrained import TINY, TINY_VISION, initial_tensors
from mlx.utils import tree_flatten

from mlx_aimv2.loading import make_model
from mlx_aimv2.models.vision import sine_cosine_positions


def test_positions_begin_as_those_of_native_resolution():
    expected = np.array(sine_cosine_positions(4, 4, 64))
    alone = initial_tensors(TINY_VISION)["embeddings.position_embedding.weight"]
    paired = initial_tensors(TINY)[POSITION_TABLE]
    np.testing.assert_array_equal(np.array(alone), expected)
    np.testing.assert_array_equal(np.array(paired), expected)


def test_the_same_seed_gives_the_same_weights_and_another_others():
    one, again, other = (initial_tensors(TINY, seed) for seed in (1, 1, 2))
    name = "vision_model.encoder.layers.0.attention.q_proj.weight"
    np.testing.assert_array_equal(np.array(one[name]), np.array(again[name]))
    assert not np.array_equal(np.array(one[name]), np.array(other[name]))


def test_weights_are_those_that_the_layers_begin_with_after_the_seed():
    """A training is repeated only if they stay that."""
    mx.random.seed(1)
    expected = dict(tree_flatten(make_model(TINY).parameters()))
    found = initial_tensors(TINY, 1)
    assert set(found) == set(expected)
    for name in set(found) - {POSITION_TABLE}:
        np.testing.assert_array_equal(np.array(found[name]), np.array(expected[name]))


def test_the_callers_generator_goes_on_as_if_nothing_had_been_drawn():
    mx.random.seed(3)
    _, second = (np.array(mx.random.normal((4,))) for _ in range(2))
    mx.random.seed(3)
    mx.random.normal((4,))
    initial_tensors(TINY_VISION)
    np.testing.assert_array_equal(np.array(mx.random.normal((4,))), second)
