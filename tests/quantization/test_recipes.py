"""Recipes of mixed bits."""

import json

import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import LoadOptions, convert, load
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.events import ignore
from mlx_aimv2.quantization.recipes import RECIPES

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`


PACKED = LoadOptions(keep_quantized=True)


def parameters(folder, **options):
    return dict(tree_flatten(load(folder, on_event=ignore, **options)[0].parameters()))


@pytest.mark.parametrize("recipe", RECIPES)
def test_mixed_bits_go_to_value_and_down_projections(wide_pair, tmp_path, recipe):
    low, high = RECIPES[recipe]
    options = ConvertOptions(quant_predicate=recipe)
    folder = convert(wide_pair, tmp_path / "out", options=options)
    entry = json.loads((folder / "config.json").read_text())["quantization"]
    assert (entry["bits"], entry["group_size"]) == (low, 64)
    layers = "vision_model.encoder.layers"
    raised = {path for path, scheme in entry.items() if isinstance(scheme, dict) and scheme["bits"] == high}
    # of ten layers: the first eighth (1), the last (from 8.75 on, so 8 and 9), and every third between
    numbers = {int(path.split(".")[3]) for path in raised if path.startswith(layers)}
    assert numbers == {0, 3, 6, 8, 9}
    assert {path.rpartition(".")[2] for path in raised} == {"v_proj", "down_proj"}
    packed = parameters(folder, options=PACKED)
    scales = packed[f"{layers}.0.attention.v_proj.scales"], packed[f"{layers}.0.attention.q_proj.weight"]
    assert scales[0].shape == (128, 2)
    assert scales[1].shape == (128, 128 * low // 32)
