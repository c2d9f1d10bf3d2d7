"""Drawings to compare two checkpoints on."""

from __future__ import annotations

import pytest

from mlx_aimv2.fidelity.outputs import make_sample

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`


def test_the_drawings_differ_and_have_a_label_each():
    sample = make_sample(None)
    assert len(sample.images) == 64 and len(sample.labels) == 15
    assert len({image.tobytes() for image in sample.images}) == 64
    assert len({image.size for image in sample.images}) == 4
