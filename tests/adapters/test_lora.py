"""Layers with an adapter, by themselves."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2.adapters.lora import DoRALinear, LoRALinear, linear_shape, plain_weight

WIDTHS = (64, 96)  # in, out
MODES = {"affine": (32, 4), "mxfp4": (32, 4), "nvfp4": (16, 4), "mxfp8": (32, 8)}


def linear(bias=True, dtype=mx.float32, mode=None):
    mx.random.seed(0)
    layer = nn.Linear(*WIDTHS, bias=bias)
    layer.set_dtype(dtype)
    return layer if mode is None else layer.to_quantized(*MODES[mode], mode=mode)


def trained(layer):
    layer.lora_b = mx.random.normal(layer.lora_b.shape, scale=0.2, key=mx.random.key(1))
    if "magnitude" in layer:
        factors = mx.random.uniform(0.7, 1.4, layer.magnitude.shape, key=mx.random.key(2))
        layer.magnitude = layer.magnitude * factors
    return layer.eval()


def inputs(dtype=mx.float32):
    return mx.random.normal((2, 5, WIDTHS[0]), key=mx.random.key(9)).astype(dtype)


def close(a, b, tolerance):
    np.testing.assert_allclose(
        np.array(a, np.float32), np.array(b, np.float32), atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize("mode", [None, *MODES])
@pytest.mark.parametrize("make", [LoRALinear, DoRALinear])
def test_a_fresh_adapter_changes_nothing(make, mode):
    base = linear(mode=mode)
    close(make(base)(inputs()), base(inputs()), 1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_lora_is_its_formula(bias):
    layer = trained(LoRALinear(linear(bias), rank=4, alpha=6.0))
    weight = layer.linear.weight + 6 / 4 * layer.lora_b @ layer.lora_a
    close(layer(inputs()), inputs() @ weight.T + (layer.linear.bias if bias else 0), 1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_dora_is_its_formula(bias):
    layer = trained(DoRALinear(linear(bias), rank=4, alpha=6.0))
    weight = layer.linear.weight + 6 / 4 * layer.lora_b @ layer.lora_a
    weight = layer.magnitude[:, None] * weight / mx.linalg.norm(weight, axis=1, keepdims=True)
    close(layer(inputs()), inputs() @ weight.T + (layer.linear.bias if bias else 0), 1e-5)


def test_the_scale_follows_rank_or_its_root():
    assert LoRALinear(linear(), rank=4, alpha=6.0).scale == 1.5
    assert LoRALinear(linear(), rank=4, alpha=6.0, rslora=True).scale == 3.0


def test_a_fresh_adapter_is_drawn_as_peft_draws_it():
    layer = LoRALinear(linear(), rank=32)
    bound = WIDTHS[0] ** -0.5
    assert (layer.lora_a.shape, layer.lora_b.shape) == ((32, WIDTHS[0]), (WIDTHS[1], 32))
    assert mx.abs(layer.lora_a).max().item() <= bound
    assert layer.lora_a.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not layer.lora_b.any()


@pytest.mark.parametrize("mode", [None, *MODES])
@pytest.mark.parametrize("make", [LoRALinear, DoRALinear])
def test_only_the_adapter_is_trained(make, mode):
    layer = make(linear(mode=mode))
    names = {"lora_a", "lora_b"} | ({"magnitude"} if make is DoRALinear else set())
    assert {name for name, _ in tree_flatten(layer.trainable_parameters())} == names
    assert {name.split(".")[0] for name, _ in tree_flatten(layer.parameters())} == names | {"linear"}


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("mode", [None, *MODES])
@pytest.mark.parametrize("make", [LoRALinear, DoRALinear])
def test_sixteen_bits_stay_sixteen_bits(make, mode, dtype):
    layer = trained(make(linear(dtype=dtype, mode=mode)))
    assert layer.lora_a.dtype == mx.float32
    assert layer(inputs(dtype)).dtype == dtype
    loss = nn.value_and_grad(layer, lambda layer: layer(inputs(dtype)).astype(mx.float32).sum())
    assert {x.dtype for _, x in tree_flatten(loss(layer)[1])} == {mx.float32}


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16])
@pytest.mark.parametrize("make", [LoRALinear, DoRALinear])
def test_a_fused_layer_computes_the_same(make, dtype):
    layer = trained(make(linear(dtype=dtype), rank=4))
    fused = layer.fuse()
    assert type(fused) is nn.Linear and fused.weight.dtype == dtype
    close(fused(inputs(dtype)), layer(inputs(dtype)), 1e-5 if dtype == mx.float32 else 1e-2)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [LoRALinear, DoRALinear])
def test_a_fused_quantized_layer_is_quantized_in_the_same_way(make, mode):
    base = linear(mode=mode)
    layer = trained(make(base, rank=4))
    fused = layer.fuse()
    assert isinstance(fused, nn.QuantizedLinear)
    assert (fused.group_size, fused.bits, fused.mode) == (base.group_size, base.bits, base.mode)
    shapes = {name: (x.shape, x.dtype) for name, x in tree_flatten(base.parameters())}
    assert {name: (x.shape, x.dtype) for name, x in tree_flatten(fused.parameters())} == shapes
    merged = layer.merged_weight()
    again = nn.Linear(*WIDTHS)
    again.weight, again.bias = merged, base.bias
    close(plain_weight(fused), plain_weight(again.to_quantized(*MODES[mode], mode=mode)), 1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", [LoRALinear, DoRALinear])
def test_a_fused_quantized_layer_may_become_plain(make, mode):
    layer = trained(make(linear(mode=mode), rank=4))
    fused = layer.fuse(dequantize=True)
    assert type(fused) is nn.Linear
    close(fused(inputs()), layer(inputs()), 1e-4)


@pytest.mark.parametrize("mode", [None, *MODES])
def test_norms_of_rows_are_those_of_the_whole_weight(mode):
    layer = trained(DoRALinear(linear(mode=mode), rank=4))
    whole = plain_weight(layer.linear) + layer.scale * layer.lora_b @ layer.lora_a
    close(layer.row_norms(), mx.linalg.norm(whole, axis=1), 1e-4)


def test_the_norm_counts_as_a_constant():
    """With it as a constant, a longer B gives a longer output; the true norm would take that away again."""
    layer = trained(DoRALinear(linear(bias=False), rank=4))

    def with_constant(a, b, norms):
        weight = layer.linear.weight + layer.scale * b @ a
        return (inputs() @ (layer.magnitude[:, None] * weight / norms[:, None]).T).sum()

    expected = mx.grad(with_constant, argnums=(0, 1))(layer.lora_a, layer.lora_b, layer.row_norms())
    found = nn.value_and_grad(layer, lambda layer: layer(inputs()).sum())(layer)[1]
    close(found["lora_a"], expected[0], 1e-3)
    close(found["lora_b"], expected[1], 1e-3)


@pytest.mark.parametrize("make", [LoRALinear, DoRALinear])
def test_dropout_is_for_training_and_for_the_adapter_alone(make):
    layer = trained(make(linear(), rank=4, dropout=0.5))
    still = layer(inputs())
    assert mx.array_equal(layer(inputs()), still)
    layer.train()
    mx.random.seed(1)
    assert not mx.allclose(layer(inputs()), still)
    layer.lora_b = mx.zeros_like(layer.lora_b)
    if make is DoRALinear:
        layer.magnitude = layer.row_norms()
    close(layer(inputs()), layer.linear(inputs()), 1e-5)


def test_dropout_on_average_is_none():
    layer = trained(DoRALinear(linear(), rank=4, dropout=0.3))
    still = layer(inputs())
    layer.train()
    mx.random.seed(2)
    mean = layer(mx.broadcast_to(inputs(), (600, *inputs().shape))).mean(axis=0)
    assert mx.abs(mean - still).max().item() < 0.15 * mx.abs(still).max().item()


@pytest.mark.parametrize("mode", [None, *MODES])
def test_shapes_are_those_of_plain_weights(mode):
    assert linear_shape(linear(mode=mode)) == (96, 64)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_weights_with_scales_of_16_bits_are_unpacked_in_more(dtype):
    layer = linear(dtype=dtype).to_quantized(32, 8)
    assert layer.scales.dtype == dtype
    codes = np.array(layer.weight).view(np.uint8).astype(np.float64).reshape(WIDTHS[1], -1, 32)
    scales, biases = (np.array(layer[name].astype(mx.float32), np.float64) for name in ("scales", "biases"))
    expected = (codes * scales[..., None] + biases[..., None]).reshape(WIDTHS[::-1])
    np.testing.assert_allclose(plain_weight(layer), expected, rtol=0, atol=1e-7)
    coarse = mx.dequantize(layer.weight, layer.scales, layer.biases, 32, 8).astype(mx.float32)
    assert np.abs(np.array(coarse) - expected).max() > 1e-5  # which is what the test is for
