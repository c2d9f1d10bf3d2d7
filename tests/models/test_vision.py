from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2 import Aimv2VisionConfig, Aimv2VisionModel
from mlx_aimv2.errors import InputError
from mlx_aimv2.models.layers import merge_heads, split_heads
from mlx_aimv2.models.vision import PatchEmbedding, patch_grid, sine_cosine_positions

FIXED = Aimv2VisionConfig(
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=3,
    image_size=28,
    patch_size=7,
    use_head=False,
)
NATIVE = replace(FIXED, is_native=True)


def make(config, dtype=mx.float32):
    model = Aimv2VisionModel(config)
    model.set_dtype(dtype)
    model.eval()
    return model


def pixels(batch=2, height=28, width=28):
    return mx.random.normal((batch, height, width, 3), key=mx.random.key(2))


def test_one_token_per_patch_and_no_pooled_output_without_a_head():
    out = make(FIXED)(pixels())
    assert out.last_hidden_state.shape == (2, 16, 24)
    assert (out.pooler_output, out.hidden_states, out.attentions) == (None, None, None)


def test_a_head_pools():
    assert make(replace(FIXED, use_head=True))(pixels()).pooler_output.shape == (2, 24)


@pytest.mark.parametrize(("height", "width", "count"), [(7, 7, 1), (7, 35, 5), (28, 14, 8)])
def test_native_takes_any_grid(height, width, count):
    assert make(NATIVE)(pixels(1, height, width)).last_hidden_state.shape == (1, count, 24)


def test_patches_are_those_of_a_strided_convolution():
    embed, x = PatchEmbedding(FIXED), pixels(2, 14, 21)
    embed.bias = mx.arange(24) / 7
    convolved = mx.conv2d(x, embed.weight, stride=7) + embed.bias  # (B, h, w, D)
    np.testing.assert_allclose(np.array(embed(x)), np.array(convolved).reshape(2, 6, 24), atol=1e-5)


def test_native_drops_what_is_left_over_on_the_right_and_at_the_bottom():
    model, x = make(NATIVE), pixels(1, 27, 34)
    whole = model(x[:, :21, :28])
    assert mx.array_equal(model(x).last_hidden_state, whole.last_hidden_state)


def test_fixed_size_drops_less_than_a_patch_too():
    model, x = make(FIXED), pixels(1, 34, 30)
    assert mx.array_equal(model(x).last_hidden_state, model(x[:, :28, :28]).last_hidden_state)


def test_native_positions_follow_the_formula():
    h, w, dim = 3, 5, 16
    expected = np.zeros((h, w, dim))
    for row in range(h):
        for column in range(w):
            for k in range(dim // 4):
                omega = 1 / 10000 ** (k / (dim / 4))
                expected[row, column, k] = np.sin(column * omega)
                expected[row, column, 4 + k] = np.cos(column * omega)
                expected[row, column, 8 + k] = np.sin(row * omega)
                expected[row, column, 12 + k] = np.cos(row * omega)
    table = sine_cosine_positions(h, w, dim)
    assert table.dtype == mx.float32
    np.testing.assert_allclose(np.array(table), expected.reshape(h * w, dim), atol=1e-7)


@pytest.mark.parametrize("config", [FIXED, NATIVE], ids=["fixed", "native"])
def test_the_first_state_is_the_normed_patches_and_their_positions(config):
    model, x = make(config), pixels(1)
    table = (
        sine_cosine_positions(4, 4, 24) if config.is_native else model.embeddings.position_embedding.weight
    )
    patches = np.array(model.embeddings.patch_embed(x), np.float64)
    normed = patches / np.sqrt((patches**2).mean(-1, keepdims=True) + 1e-5)  # the norm's weight is one
    states = model(x, output_hidden_states=True).hidden_states
    np.testing.assert_allclose(np.array(states[0]), normed + np.array(table), atol=1e-5)


def test_states_are_the_embeddings_and_every_layer_before_the_final_norm():
    model, x = make(FIXED), pixels()
    model.rms_norm.weight = mx.arange(24) / 24
    out = model(x, output_hidden_states=True)
    assert len(out.hidden_states) == 1 + FIXED.num_hidden_layers
    assert mx.array_equal(out.hidden_states[0], model.embeddings(x))
    assert mx.array_equal(model.rms_norm(out.hidden_states[-1]), out.last_hidden_state)
    assert not mx.array_equal(out.hidden_states[-1], out.last_hidden_state)


def test_attentions_sum_to_one_and_reproduce_the_layers_output():
    model, x = make(FIXED), pixels()
    out = model(x, output_hidden_states=True, output_attentions=True)
    assert [a.shape for a in out.attentions] == [(2, 3, 16, 16)] * 2
    for layer, weights, before in zip(model.encoder.layers, out.attentions, out.hidden_states, strict=False):
        np.testing.assert_allclose(np.array(weights.sum(-1)), 1, rtol=1e-5)
        normed = layer.rms_norm1(before)
        mixed = merge_heads(weights @ split_heads(layer.attention.v_proj(normed), 3))
        np.testing.assert_allclose(
            np.array(layer.attention.mix(*layer.project(before))), np.array(mixed), atol=1e-5
        )


def test_asking_for_more_changes_nothing():
    model, x = make(FIXED), pixels()
    out = model(x, output_hidden_states=True, output_attentions=True)
    assert mx.array_equal(model(x).last_hidden_state, out.last_hidden_state)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
@pytest.mark.parametrize("config", [FIXED, replace(NATIVE, use_head=True)], ids=["fixed", "native"])
def test_inside_is_the_models_dtype_and_outside_float32(config, dtype):
    out = make(config, dtype)(pixels(), output_hidden_states=True, output_attentions=True)
    assert {state.dtype for state in out.hidden_states} == {dtype}
    assert {out.last_hidden_state.dtype, *(a.dtype for a in out.attentions)} == {mx.float32}
    assert not config.use_head or out.pooler_output.dtype == mx.float32


def test_images_of_a_batch_do_not_mix():
    model, x = make(FIXED), pixels(3)
    np.testing.assert_allclose(
        np.array(model(x).last_hidden_state[1:2]), np.array(model(x[1:2]).last_hidden_state), atol=1e-5
    )


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (FIXED, (28, 28, 3), r"pixel_values must be \(B, H, W, 3\), not \(28, 28, 3\)$"),
        (FIXED, (1, 28, 28, 4), r"must be \(B, H, W, 3\), not \(1, 28, 28, 4\)$"),
        (FIXED, (1, 3, 28, 28), r"not \(1, 3, 28, 28\); the channels come last here"),
        (NATIVE, (1, 6, 70, 3), "pixel_values of 6 x 70 pixels hold no patch of 7 x 7"),
        (FIXED, (1, 28, 6, 3), "pixel_values of 28 x 6 pixels hold no patch of 7 x 7"),
        (
            FIXED,
            (1, 28, 35, 3),
            "takes 28 x 28 pixels, not 28 x 35: resize the images .* native-resolution",
        ),
        (FIXED, (1, 14, 56, 3), "takes 28 x 28 pixels, not 14 x 56"),
    ],
)
def test_wrong_shapes_are_refused(config, shape, message):
    with pytest.raises(InputError, match=message):
        patch_grid(config, mx.zeros(shape))


def test_a_single_patch_is_not_spread_over_the_table():
    with pytest.raises(InputError, match="takes 28 x 28 pixels, not 7 x 7"):
        make(FIXED)(pixels(1, 7, 7))


@pytest.mark.parametrize("dtype", [mx.uint8, mx.int32], ids=str)
def test_whole_numbers_are_refused(dtype):
    with pytest.raises(
        InputError, match=r"pixel_values must be normalized floats, not .*int.*use the processor"
    ):
        patch_grid(FIXED, mx.zeros((1, 28, 28, 3), dtype=dtype))
