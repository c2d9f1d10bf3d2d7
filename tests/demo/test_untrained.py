"""What training from scratch begins with."""

import numpy as np

from mlx_aimv2.demo.untrained import TINY, TINY_VISION, initial_tensors
from mlx_aimv2.models.vision import sine_cosine_positions


def test_positions_begin_as_those_of_native_resolution():
    expected = np.array(sine_cosine_positions(4, 4, 64))
    alone = initial_tensors(TINY_VISION)["embeddings.position_embedding.weight"]
    paired = initial_tensors(TINY)["vision_model.embeddings.position_embedding.weight"]
    np.testing.assert_array_equal(np.array(alone), expected)
    np.testing.assert_array_equal(np.array(paired), expected)


def test_the_same_seed_gives_the_same_weights_and_another_others():
    one, again, other = (initial_tensors(TINY, seed) for seed in (1, 1, 2))
    name = "vision_model.encoder.layers.0.attention.q_proj.weight"
    np.testing.assert_array_equal(np.array(one[name]), np.array(again[name]))
    assert not np.array_equal(np.array(one[name]), np.array(other[name]))
