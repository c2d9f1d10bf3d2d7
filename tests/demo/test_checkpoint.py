"""What the checkpoint in the package knows. `benchmarks/demo.py` and `benchmarks/transfer.py` measure all of it."""

import random

import numpy as np
from drawn_world.examples import sample_examples
from drawn_world.placement import places
from drawn_world.surfaces import ground_pixels, own_colors

from mlx_aimv2 import Embedder, load

SIDE, GRID = 84, 6


def covered(example):
    """(36,) the share of each patch of an image that lies in the circles around its things."""
    rng = random.Random(f"paint/{example.seed}")
    ground_pixels(own_colors(example.scene).ground, example.scene.ground.finish, SIDE, rng)
    middles = (np.arange(SIDE) + 0.5) / SIDE
    inside = np.zeros((SIDE, SIDE), bool)
    for place in places(example.scene, rng):
        inside |= np.hypot(middles - place.x, middles[:, None] - place.y) < place.diameter / 2
    return inside.reshape(GRID, 14, GRID, 14).mean(axis=(1, 3)).ravel()


def test_the_main_direction_of_the_patches_tells_things_from_ground():
    examples = sample_examples(40)
    images = [example.image(SIDE) for example in examples]
    tokens = Embedder(*load("demo"), pooling="tokens").images(images).reshape(len(images) * GRID**2, -1)
    centred = tokens - tokens.mean(axis=0)
    main = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    shares = np.concatenate([covered(example) for example in examples])
    things, ground = main[shares > 0.6], main[shares == 0]
    above = (things[:, None] > ground).mean()  # the area under the ROC curve
    assert max(above, 1 - above) > 0.9
