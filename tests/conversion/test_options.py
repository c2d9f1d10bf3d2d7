"""Options of a conversion."""

import json

import pytest

from mlx_aimv2 import convert
from mlx_aimv2.errors import ConfigError, InputError
from mlx_aimv2.quantization.scheme import Scheme

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the notices of `warn`


def test_a_scheme_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="mode mxfp4 has no 4 bits in groups of 64: bits 4 in groups of 32"):
        Scheme(64, 4, "mxfp4")


def test_the_arguments_are_mlx_lms(wide_pair, tmp_path):
    folder = convert(wide_pair, tmp_path / "out", quantize=True, q_bits=8, q_group_size=32)
    assert json.loads((folder / "config.json").read_text())["quantization"] == Scheme(32, 8).arguments()
    plain = convert(folder, tmp_path / "plain", dequantize=True, dtype="float16")
    assert "quantization" not in json.loads((plain / "config.json").read_text())
    mixed = convert(wide_pair, tmp_path / "mixed", quantize=True, quant_predicate="mixed_3_6")
    entry = json.loads((mixed / "config.json").read_text())["quantization"]
    assert (entry["bits"], entry["group_size"]) == (3, 64)
    assert (
        "3-bit affine, groups of 64, some layers differ, recipe mixed_3_6"
        in (mixed / "README.md").read_text()
    )


def test_details_of_no_quantization_are_refused(wide_pair, tmp_path):
    details = {"q_bits": 4, "q_group_size": 32, "q_mode": "affine", "quant_predicate": "mixed_3_6"}
    for name, value in details.items():
        flag = f"--{name.replace('_', '-')}"
        message = (
            rf"^{flag} says how to quantize, and nothing is quantized without -q \(in Python, quantize=True\)"
        )
        with pytest.raises(InputError, match=message):
            convert(wide_pair, tmp_path / "out", **{name: value})
    with pytest.raises(InputError, match=r"the recipe mixed_3_6 sets the bits: leave q_bits"):
        convert(wide_pair, tmp_path / "out", quantize=True, q_bits=4, quant_predicate="mixed_3_6")
    with pytest.raises(InputError, match=r"^quantization mode affine has no 0 bits in groups of 64"):
        convert(wide_pair, tmp_path / "out", quantize=True, q_bits=0)
