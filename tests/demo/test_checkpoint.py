"""What the checkpoint in the package knows. `benchmarks/demo.py` and `benchmarks/transfer.py` measure all of it."""

import random

import numpy as np

from mlx_aimv2 import Embedder, load
from mlx_aimv2.demo.grammar import SORTED_PAIRS
from mlx_aimv2.demo.painting import Conditions, paint
from mlx_aimv2.demo.scenes import POSITIONS, Ground, Scene, Thing
from mlx_aimv2.demo.surfaces import goes_on

SIDE, GRID = 84, 6
CLEAR = Conditions(light=0, blur=0, noise=0, occlusion=0)


def scenes():
    """A large thing on an even ground, of every held-out shape and colour."""
    rng = random.Random(0)
    for pair in SORTED_PAIRS:
        thing = Thing(*pair, size="large")
        ground = next(one for one in (Ground("grey"), Ground("white"), Ground("navy")) if goes_on(thing, one))
        yield Scene(thing, ground, position=rng.choice(POSITIONS))


def covered(picture):
    """(36,) the share of each patch that is not ground."""
    pixels = np.asarray(picture, np.float32)
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    thing = np.abs(pixels - ground).max(axis=-1) > 30
    return thing.reshape(GRID, 14, GRID, 14).mean(axis=(1, 3)).ravel()


def test_the_main_direction_of_the_patches_tells_things_from_ground():
    pictures = [paint(scene, SIDE, "patches", CLEAR) for scene in scenes()]
    tokens = Embedder(*load("demo"), pooling="tokens").images(pictures).reshape(len(pictures) * GRID**2, -1)
    centred = tokens - tokens.mean(axis=0)
    main = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    shares = np.concatenate([covered(picture) for picture in pictures])
    things, ground = main[shares > 0.6], main[shares == 0]
    above = (things[:, None] > ground).mean()  # the area under the ROC curve
    assert max(above, 1 - above) > 0.9
