"""The report of a comparison."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mlx_aimv2.fidelity.compare import compare

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`


def test_as_json_as_rows_and_as_markdown(tiny_pair, quantized, images):
    found = compare(tiny_pair, quantized(2), images)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain == found.to_dict()
    name, error = found.layers[0]
    assert plain["layers"][0] == {"layer": name, "relative_error": error}
    assert (plain["neighbour_recall"], plain["neighbours"]) == (found.neighbour_recall, 3)
    assert plain["zero_shot"]["agreement"] == found.zero_shot.agreement
    text = found.markdown()
    assert "on 8 images, on a CPU" in text
    assert "| stored as | float32 | 2-bit affine, groups of 32 |" in text
    assert f"| image cosine, least |  | {found.cosine_min:.6f} |" in text
    assert f"| {found.worst_layers[0][0]} | " in text
    assert str(tiny_pair) not in text
    assert [row[0] for row in found.rows()][:2] == ["layout", "stored as"]
    drawn = replace(found, drawn=True, zero_shot=None, neighbour_recall=None, differing=("image_mean",))
    assert "on 8 built-in drawings" in drawn.markdown()
    assert "prepare images or texts differently (image_mean)" in drawn.markdown()
    assert not any("zero-shot" in row[0] or "neighbours" in row[0] for row in drawn.rows())
    assert drawn.to_dict()["zero_shot"] is None
