"""Images of three shades, and a classifier that tells them apart."""

import numpy as np
import pytest
from PIL import Image

LABELS = ("dark", "bright", "grey")
LEVELS = (0, 255, 128)


@pytest.fixture(scope="session")
def shades(tmp_path_factory):
    """Nine images of three shades, with the numbers of their labels."""
    folder = tmp_path_factory.mktemp("shades")
    examples = []
    for k in range(9):
        path = folder / f"{k}.png"
        Image.new("RGB", (60, 70), (max(0, LEVELS[k % 3] - k),) * 3).save(path)
        examples.append((str(path), (k % 3,)))
    return examples


@pytest.fixture(scope="session")
def learned(tiny_vision, shades):
    """A classifier that knows the shades: the head is solved for, by least squares."""
    import mlx.core as mx

    from mlx_aimv2 import load
    from mlx_aimv2.models.classifier import Classifier, LinearHead

    trunk, processor = load(tiny_vision)
    classifier = Classifier(trunk, LinearHead(64, 3), "mean")
    pixels = mx.array(np.stack([processor.image_processor(path) for path, _ in shades]))
    features = np.array(classifier.features(pixels)).astype(np.float64)
    targets = np.eye(3)[[numbers[0] for _, numbers in shades]] * 20 - 10
    inputs = np.concatenate([features, np.ones((9, 1))], axis=1)
    solved = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    classifier.head.linear.weight = mx.array(solved[:-1].T.astype(np.float32))
    classifier.head.linear.bias = mx.array(solved[-1].astype(np.float32))
    classifier.labels = LABELS
    return classifier, processor
