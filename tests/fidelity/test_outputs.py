"""What one checkpoint makes of the images of a comparison."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_aimv2.errors import InputError, NonFiniteError
from mlx_aimv2.fidelity.compare import compare
from mlx_aimv2.fidelity.outputs import _named_states

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`


def test_hidden_states_of_few_images_are_kept_where_they_are_large(tiny_vision, images, monkeypatch):
    monkeypatch.setattr("mlx_aimv2.fidelity.outputs.LAYER_BYTES", 1)
    assert compare(tiny_vision, tiny_vision, images).layer_images == 1


def test_too_few_images_are_refused(tiny_vision, images, tmp_path):
    with pytest.raises(InputError, match="needs at least two images, not 1: name more, or none for built-in"):
        compare(tiny_vision, tiny_vision, images[:1])
    with pytest.raises(InputError, match="needs at least two images, not 0"):
        compare(tiny_vision, tiny_vision, [])
    missing = [images[0], tmp_path / "a.png", tmp_path / "b.png"]
    with pytest.raises(InputError, match="needs at least two images, only 1 of 3 could be read"):
        compare(tiny_vision, tiny_vision, missing)


def test_a_layer_that_gives_nothing_finite_is_named():
    states = (mx.zeros((1, 2, 3)), mx.full((1, 2, 3), mx.inf))
    with pytest.raises(
        NonFiniteError, match=r"the output of text_model\.encoder\.layers\.0 holds NaN or inf"
    ):
        _named_states("text_model.", states)
