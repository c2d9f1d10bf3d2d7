"""Images of another size than the position table's, on the command line."""

from __future__ import annotations

import json

import numpy as np

from mlx_aimv2 import Embedder, load
from mlx_aimv2.loading import LoadOptions
from mlx_aimv2.processing.decode import DecodeOptions


def test_positions_are_resampled_where_it_is_asked_for(cli, pair, photos, tmp_path):
    request = ["embed", photos / "0.png", "-m", pair, "--json", "--image-size", 84]
    refused = cli(*request)
    assert refused.returncode == 2 and refused.stdout == ""
    assert (
        "takes 56 x 56 pixels, not 84 on a side: resample the position table with --interpolate"
        in refused.stderr
    )
    done = cli(*request, "--interpolate-positions")
    assert done.returncode == 0
    options = LoadOptions(interpolate_positions=True, image_size=84, decode=DecodeOptions(decode="fast"))
    expected = Embedder(*load(pair, options=options)).images([photos / "0.png"])[0]
    np.testing.assert_allclose(json.loads(done.stdout)["embedding"], expected, atol=1e-6)
    written = cli(
        "convert", "--model", pair, "--mlx-path", tmp_path / "84", *request[-2:], "--interpolate-positions"
    )
    assert written.returncode == 0
    assert (
        json.loads(cli("info", tmp_path / "84", "--json").stdout)["config"]["vision_config"]["image_size"]
        == 84
    )
    again = cli(*request[:3], tmp_path / "84", "--json")
    np.testing.assert_allclose(json.loads(again.stdout)["embedding"], expected, atol=1e-6)
