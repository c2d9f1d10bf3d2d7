import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2.errors import ConfigError, DamagedFileError
from mlx_aimv2.quantization.scheme import (
    VALID,
    Quantization,
    Scheme,
    dequantize,
    quantize_modules,
    quantized_paths,
    unpack_modules,
)

SCHEMES = [
    Scheme(64, 4, "affine"),
    Scheme(32, 8, "affine"),
    Scheme(32, 4, "mxfp4"),
    Scheme(16, 4, "nvfp4"),
    Scheme(32, 8, "mxfp8"),
]


def packed(scheme, seed=0):
    """A random weight, its packed tensors, and what they stand for."""
    weight = mx.random.normal((8, 128), key=mx.random.key(seed))
    parts = mx.quantize(weight, **scheme.arguments())
    tensors = dict(zip(("weight", "scales", "biases"), parts, strict=False))
    return weight, tensors, mx.dequantize(*parts, **scheme.arguments())


@pytest.mark.parametrize("data", [{}, {"quantization": None}])
def test_no_entry_means_no_quantization(data):
    assert Quantization.from_config(data) is None


def test_an_entry_is_read():
    entry = {"group_size": 32, "bits": 8, "mode": "mxfp8"}
    assert Quantization.from_config({"quantization": entry}) == Quantization(Scheme(32, 8, "mxfp8"))


def test_older_entries_without_a_mode_are_affine():
    assert Quantization.from_config({"quantization": {"group_size": 64, "bits": 4}}).default.mode == "affine"


def test_modules_may_differ():
    entry = {"group_size": 64, "bits": 4, "head.k_proj": {"group_size": 32, "bits": 8}, "head.v_proj": False}
    quantization = Quantization.from_config({"quantization": entry})
    assert quantization.scheme("head.k_proj") == Scheme(32, 8)
    assert quantization.scheme("head.output_proj") == Scheme(64, 4)


@pytest.mark.parametrize(
    ("modules", "text"),
    [
        ({}, "4-bit affine, groups of 64"),
        ({"a": Scheme(32, 8)}, "4-bit affine, groups of 64, some layers differ"),
    ],
)
def test_in_words(modules, text):
    assert str(Quantization(Scheme(), modules)) == text


@pytest.mark.parametrize("mode", VALID)
def test_every_valid_scheme_is_one_mlx_has(mode):
    for group_size in VALID[mode][0]:
        for bits in VALID[mode][1]:
            packed(Scheme(group_size, bits, mode))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (4, "quantization must be an object, not int"),
        ([], "quantization must be an object, not list"),
        ({"mode": "int4"}, "quantization mode 'int4' is not one of affine, mxfp4, nvfp4, mxfp8"),
        ({"mode": ["affine"]}, r"quantization mode \['affine'\] is not one of affine"),
        (
            {"bits": 7},
            "mode affine has no 7 bits in groups of 64: bits 2, 3, 4, 5, 6, 8 in groups of 32, 64, 128",
        ),
        ({"bits": "4"}, "mode affine has no 4 bits"),
        ({"bits": 4.0}, "mode affine has no 4.0 bits"),
        ({"group_size": 16}, "mode affine has no 4 bits in groups of 16"),
        ({"group_size": [64]}, r"mode affine has no 4 bits in groups of \[64\]"),
        (
            {"mode": "mxfp4", "group_size": 64},
            "mode mxfp4 has no 4 bits in groups of 64: bits 4 in groups of 32",
        ),
        ({"mode": "nvfp4", "group_size": 16, "bits": 8}, "mode nvfp4 has no 8 bits"),
        ({"head": {"bits": 1}}, "mode affine has no 1 bits"),
    ],
)
def test_schemes_that_do_not_exist_are_refused(entry, message):
    with pytest.raises(ConfigError, match=message):
        Quantization.from_config({"quantization": entry})


def test_quantized_modules_are_those_with_scales():
    names = ["a.weight", "a.scales", "a.biases", "b.weight", "c.d.scales", "scales.weight"]
    assert quantized_paths(dict.fromkeys(names)) == ["a", "c.d"]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: f"{s.mode}-{s.bits}")
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16], ids=str)
def test_unpacked_weights_are_those_mlx_unpacks(scheme, dtype):
    weight, tensors, expected = packed(scheme)
    named = {f"a.{kind}": x for kind, x in tensors.items()} | {
        "b.weight": mx.ones((2,)),
        "a.bias": mx.ones((8,)),
    }
    plain = dequantize(named, Quantization(scheme), dtype)
    assert plain.keys() == {"a.weight", "a.bias", "b.weight"}
    assert plain["a.weight"].dtype == dtype
    assert mx.array_equal(plain["a.weight"], expected.astype(dtype))
    assert mx.abs(plain["a.weight"] - weight).max() < 1


def test_each_module_is_unpacked_by_its_own_scheme():
    four, eight = packed(SCHEMES[0]), packed(SCHEMES[1], seed=1)
    named = {f"a.{kind}": x for kind, x in four[1].items()} | {f"b.{kind}": x for kind, x in eight[1].items()}
    plain = dequantize(named, Quantization(SCHEMES[0], {"b": SCHEMES[1]}), mx.float32)
    assert mx.array_equal(plain["a.weight"], four[2]) and mx.array_equal(plain["b.weight"], eight[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a.weight": None}, "a: it has scales and no packed weight"),
        ({"a.scales": mx.ones((8, 3))}, r"a: its scales do not fit its packed weight \("),
        ({"a.biases": None}, r"a: its scales do not fit its packed weight \("),
        ({"a.weight": mx.ones((8, 16))}, r"a: its scales do not fit its packed weight \("),
        ({"a.weight": mx.array(3, dtype=mx.uint32)}, r"a: its scales do not fit its packed weight \("),
    ],
    ids=["no-weight", "scales", "no-biases", "float-weight", "scalar-weight"],
)
def test_scales_that_do_not_fit_are_refused(change, message):
    tensors = {f"a.{kind}": x for kind, x in packed(SCHEMES[0])[1].items()} | change
    tensors = {name: x for name, x in tensors.items() if x is not None}
    with pytest.raises(DamagedFileError, match=message):
        mx.eval(dequantize(tensors, Quantization(SCHEMES[0]), mx.float32))


def test_only_the_named_modules_become_quantized():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(128, 8), nn.RMSNorm(8))
    quantization = Quantization(Scheme(64, 4), {"layers.1": Scheme(32, 8)})
    quantize_modules(model, quantization, ["layers.1", "layers.2", "else"])
    assert type(model.layers[0]) is nn.Linear
    assert (model.layers[1].group_size, model.layers[1].bits) == (32, 8)
    names = [name for name, _ in tree_flatten(model.parameters()) if name.startswith("layers.1")]
    assert sorted(names) == [f"layers.1.{kind}" for kind in ("bias", "biases", "scales", "weight")]


def test_a_module_that_the_scheme_cannot_hold_is_refused():
    model = nn.Sequential(nn.Linear(48, 8))
    with pytest.raises(ConfigError, match=r"config: layers\.0 cannot be quantized in groups of 64"):
        quantize_modules(model, Quantization(Scheme(64, 4)), ["layers.0"])


def by_hand(weight, scales, biases, scheme):
    """Packed 8-bit weights times their scales, in float64."""
    codes = np.array(weight).view(np.uint8).astype(np.float64)  # (rows, columns)
    scales, biases = (np.array(x.astype(mx.float32)).astype(np.float64) for x in (scales, biases))
    groups = codes.reshape(len(codes), -1, scheme.group_size)
    return (groups * scales[..., None] + biases[..., None]).reshape(codes.shape)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_scales_of_16_bits_are_multiplied_in_more(dtype):
    """Products in 16 bits would be off by a thousandth; those here are off by a rounding of float32."""
    scheme = Scheme(32, 8)
    parts = mx.quantize(mx.random.normal((8, 128), key=mx.random.key(3)).astype(dtype), **scheme.arguments())
    assert parts[1].dtype == dtype
    expected = by_hand(*parts, scheme)
    tensors = dict(zip(("a.weight", "a.scales", "a.biases"), parts, strict=True))
    plain = dequantize(tensors, Quantization(scheme), mx.float32)["a.weight"]
    np.testing.assert_allclose(plain, expected, rtol=0, atol=1e-6)
    layer = nn.Linear(128, 8, bias=False).to_quantized(**scheme.arguments())
    layer.update(dict(zip(("weight", "scales", "biases"), parts, strict=True)))
    model = nn.Sequential(layer)
    unpack_modules(model, mx.float32)
    np.testing.assert_allclose(model.layers[0].weight, expected, rtol=0, atol=1e-6)
    coarse = mx.dequantize(*parts, **scheme.arguments()).astype(mx.float32)
    assert np.abs(np.array(coarse) - expected).max() > 1e-4  # which is what the test is for
