import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import Aimv2Config, Aimv2Model, Aimv2TextConfig, Aimv2VisionConfig
from mlx_aimv2.backend import streams
from mlx_aimv2.models import layers
from mlx_aimv2.models.layers import (
    Attention,
    Encoder,
    EncoderLayer,
    GatedMLP,
    add_positions,
    add_projected,
    merge_heads,
    split_heads,
)
from mlx_aimv2.models.text import causal_mask

CONFIG = Aimv2VisionConfig(
    hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3, image_size=28
)


@pytest.fixture
def x():
    return mx.random.normal((2, 5, 24), key=mx.random.key(1))


def softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_heads_are_contiguous_slices_of_the_width(x):
    heads = split_heads(x, 3)
    assert heads.shape == (2, 3, 5, 8)
    assert mx.array_equal(heads[:, 1], x[:, :, 8:16])


def test_merging_undoes_splitting(x):
    assert mx.array_equal(merge_heads(split_heads(x, 3)), x)


def test_attention_equals_the_formula_in_numpy(x):
    layer = Attention(CONFIG)
    layer.eval()
    mixed = layer.out_proj(layer.mix(*layer.project(x)))
    q, k, v = (np.array(split_heads(p(x), 3)) for p in (layer.q_proj, layer.k_proj, layer.v_proj))
    expected = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(8)) @ v
    expected = expected.swapaxes(1, 2).reshape(2, 5, 24) @ np.array(layer.out_proj.weight).T
    np.testing.assert_allclose(np.array(mixed), expected, rtol=1e-5, atol=1e-6)


def test_attention_weights_reproduce_the_output(x):
    layer = EncoderLayer(CONFIG)
    layer.eval()
    weights = layer(x, output_attentions=True)[1]
    q, k, v = layer.project(x)
    again = merge_heads(weights @ v)
    np.testing.assert_allclose(np.array(layer.attention.mix(q, k, v)), np.array(again), rtol=1e-5, atol=1e-6)


def test_attention_weights_are_given_only_when_asked_for(x):
    assert EncoderLayer(CONFIG)(x)[1] is None


def test_attention_weights_keep_to_the_mask(x):
    mask = mx.arange(5)[:, None] >= mx.arange(5)
    weights = EncoderLayer(CONFIG)(x, mask, output_attentions=True)[1]
    assert not mx.any(mx.where(mask, 0, weights))
    np.testing.assert_allclose(np.array(weights.sum(-1)), 1, rtol=1e-6)


def test_mlp_is_down_of_silu_gate_times_up(x):
    layer = GatedMLP(CONFIG)
    layer.eval()
    gate, up, down = (
        np.array(p.weight, np.float64) for p in (layer.gate_proj, layer.up_proj, layer.down_proj)
    )
    inner = np.array(x, np.float64) @ gate.T
    expected = (inner / (1 + np.exp(-inner)) * (np.array(x) @ up.T)) @ down.T
    np.testing.assert_allclose(np.array(layer(x)), expected, rtol=1e-5, atol=1e-6)


def test_layer_adds_attention_then_mlp_to_its_input(x):
    layer = EncoderLayer(CONFIG)
    middle = x + layer.attention.out_proj(layer.attention.mix(*layer.project(x)))
    expected = middle + layer.ffn(layer.rms_norm2(middle))
    np.testing.assert_allclose(np.array(layer(x)[0]), np.array(expected), rtol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_biases_are_there_when_the_config_says_so(bias):
    layer = EncoderLayer(
        Aimv2VisionConfig(hidden_size=8, num_attention_heads=1, qkv_bias=bias, mlp_bias=bias)
    )
    projections = [
        *(layer.attention[f"{x}_proj"] for x in ("q", "k", "v", "out")),
        *(layer.ffn[f"{x}_proj"] for x in ("gate", "up", "down")),
    ]
    assert [("bias" in p) for p in projections] == [bias] * 7


def test_encoder_states_are_the_input_and_every_layer(x):
    encoder = Encoder(CONFIG)
    last, states, attentions = encoder(x, output_hidden_states=True, output_attentions=True)
    assert len(states) == 4 and len(attentions) == 3
    assert states[0] is x and states[-1] is last
    for layer, before, after in zip(encoder.layers, states, states[1:], strict=False):
        np.testing.assert_array_equal(np.array(layer(before)[0]), np.array(after))


def test_encoder_returns_no_states_unless_asked(x):
    assert Encoder(CONFIG)(x)[1:] == (None, None)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_layer_keeps_the_dtype(x, dtype):
    layer = EncoderLayer(CONFIG)
    layer.set_dtype(dtype)
    layer.eval()
    assert layer(x.astype(dtype))[0].dtype == dtype


@pytest.fixture(params=["cpu", "gpu"])
def device_form(request, monkeypatch):
    """The operations that a device gets, on this one."""
    monkeypatch.setattr(layers, "on_cpu", lambda: request.param == "cpu")


@pytest.mark.usefixtures("device_form")
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("kind", ["plain", "bias", "quantized"])
def test_a_projection_is_added_to_its_residual(dtype, kind):
    projection = nn.Linear(64, 32, bias=kind == "bias")
    projection.set_dtype(dtype)
    if kind == "quantized":
        projection = projection.to_quantized(group_size=32)
    x, inner = (mx.random.normal((2, 5, width), key=mx.random.key(width)).astype(dtype) for width in (32, 64))
    result, expected = add_projected(x, projection, inner), x + projection(inner)
    assert result.dtype == dtype and result.shape == x.shape
    tolerance = {mx.float32: 1e-6, mx.float16: 4e-3, mx.bfloat16: 4e-2}[dtype]
    assert mx.allclose(result, expected, rtol=0, atol=tolerance)


def test_a_layer_of_a_gpu_has_the_gradients_of_a_cpu(x, monkeypatch):
    layer = EncoderLayer(CONFIG)
    gradients = []
    for cpu in (True, False):
        monkeypatch.setattr(layers, "on_cpu", lambda cpu=cpu: cpu)
        step = nn.value_and_grad(layer, lambda layer: mx.square(layer(x)[0]).sum())
        gradients.append(tree_flatten(step(layer)[1]))
    for (path, a), (_, b) in zip(*gradients, strict=True):
        assert mx.allclose(a, b, rtol=1e-4, atol=1e-4), path


@pytest.mark.usefixtures("device_form")
def test_positions_are_added_in_float32():
    for batch in (1, 2):  # one compiled form for all shapes
        assert add_positions(mx.ones((batch, 3, 4)), mx.ones((3, 4))).tolist() == [[[2.0] * 4] * 3] * batch
    x, table = mx.full((1, 1, 4), 2048.0, dtype=mx.float16), mx.full((1, 4), 1.0004)
    result = add_positions(x, table)  # 2049.0004 is 2050 in float16; with the table in float16 it were 2048
    assert result.dtype == mx.float16
    assert result.flatten().tolist() == [2050.0] * 4


def test_every_norm_has_the_eps_of_its_own_tower():
    """Of a pair whose towers have other ones than the usual 1e-5; outputs near zero show it."""
    shape = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = Aimv2VisionConfig(**shape, image_size=28, rms_norm_eps=0.03)
    text = Aimv2TextConfig(**shape, vocab_size=50, eos_token_id=49, rms_norm_eps=0.07)
    pair = Aimv2Model(Aimv2Config(vision, text, projection_dim=4))
    norms = {path: norm for path, norm in pair.named_modules() if isinstance(norm, nn.RMSNorm)}
    assert (
        len(norms) == 1 + 2 * 2 + 1 + 2 * 2 + 1
    )  # vision: after the patches, in the layers, last; text: the latter
    x = mx.full((1, 8), 0.1)
    for path, norm in norms.items():
        eps = 0.03 if path.startswith("vision_model.") else 0.07
        assert mx.allclose(norm(x), 0.1 / mx.sqrt(mx.array(0.01 + eps)), atol=1e-6), path


@pytest.fixture
def divided(monkeypatch):
    """Run a function undivided, then divided over a number of streams."""

    def both(count, function):
        monkeypatch.setattr(streams, "divide_threads", lambda: 1)
        alone = function()
        monkeypatch.setattr(streams, "ELEMENTS", 1)
        monkeypatch.setattr(streams, "divide_threads", lambda: count)
        return alone, function()

    return both


def close(alone, parts):
    alone, parts = tree_flatten(alone), tree_flatten(parts)
    assert [name for name, _ in alone] == [name for name, _ in parts]
    for (name, one), (_, other) in zip(alone, parts, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            np.testing.assert_allclose(np.array(one), np.array(other), rtol=1e-4, atol=1e-5, err_msg=name)


MASKS = {
    "none": lambda batch: None,
    "causal": lambda batch: causal_mask(7, None),
    "padded": lambda batch: causal_mask(7, mx.arange(7) < mx.array([[3 + k % 4] for k in range(batch)])),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("batch", [1, 2, 3, 5])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_divided_encoder_gives_the_undivided_result(divided, count, batch, mask):
    encoder = Encoder(CONFIG).eval()
    x = mx.random.normal((batch, 7, 24), key=mx.random.key(batch))
    close(*divided(count, lambda: encoder(x, MASKS[mask](batch))))
    close(*divided(count, lambda: encoder(x, MASKS[mask](batch), True, True)))


def test_training_is_not_divided(monkeypatch):
    monkeypatch.setattr(layers, "streams_for", lambda size: pytest.fail("divided"))
    x = mx.zeros((3, 7, 24))
    assert Encoder(CONFIG).train()(x)[0].shape == x.shape
    with pytest.raises(pytest.fail.Exception, match="divided"):
        Encoder(CONFIG).eval()(x)
