"""The sample images in the package: files, captions and labels that belong together."""

import json

import numpy as np
from drawn_world.examples import sample_examples

from mlx_aimv2.demo.images import CAPTIONS, FOLDER, LABELS, sample_images


def test_every_file_has_an_entry_and_every_entry_has_a_file():
    samples = sample_images()
    assert [sample.path for sample in samples] == sorted(FOLDER.iterdir())
    assert len(samples) == len(json.loads(CAPTIONS.read_text())) == 12


def test_they_are_the_examples_of_the_drawn_world():
    """Another Pillow draws a little differently."""
    for sample, example in zip(sample_images(), sample_examples(12), strict=True):
        assert sample.caption == example.caption
        assert sample.labels == tuple(thing.label for thing in example.scene.things)
        stored, drawn = (np.asarray(image, np.float32) for image in (sample.open(), example.image(224)))
        assert np.abs(stored - drawn).mean() < 6  # the noise of some images


def test_labels_are_those_of_the_classifier():
    assert len(LABELS) == len(set(LABELS)) == 120
    for sample in sample_images():
        assert set(sample.labels) <= set(LABELS)
        assert sample.open().mode == "RGB" and sample.open().size == (224, 224)
