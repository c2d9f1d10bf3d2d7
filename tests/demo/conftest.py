"""A tour of a small untrained pair, so that no label has to be right."""

from dataclasses import replace

import pytest
from drawn_world.examples import training_examples
from drawn_world.untrained import TINY, TINY_TEXT, write_checkpoint
from drawn_world.vocabulary import learn_vocabulary

from mlx_aimv2.demo.options import TourOptions
from mlx_aimv2.demo.tour import take_tour


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    vocabulary = learn_vocabulary(example.caption for example in training_examples(1000))
    size = len(vocabulary.tokens)
    config = replace(TINY, text_config=replace(TINY_TEXT, vocab_size=size, eos_token_id=size - 1))
    folder = tmp_path_factory.mktemp("tour") / "pair"
    return str(write_checkpoint(folder, config, vocabulary=vocabulary))


@pytest.fixture(scope="session")
def tour_events():
    return []


@pytest.fixture(scope="session")
def tour(model, tour_events, tmp_path_factory):
    return take_tour(tmp_path_factory.mktemp("tour") / "out", TourOptions(model, count=6), tour_events.append)
