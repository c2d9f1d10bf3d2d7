import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2 import Aimv2TextConfig, Aimv2TextModel
from mlx_aimv2.errors import InputError
from mlx_aimv2.models.text import causal_mask

EOS = 31
CONFIG = Aimv2TextConfig(
    vocab_size=32,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=3,
    max_position_embeddings=10,
    eos_token_id=EOS,
)
IDS = mx.array([[1, 5, 7, 9, 11, EOS]])


@pytest.fixture
def model():
    model = Aimv2TextModel(CONFIG)
    model.eval()
    return model


def arrays_equal(a, b):
    return np.array_equal(np.array(a), np.array(b))


def test_one_token_per_id(model):
    out = model(mx.concatenate([IDS, IDS]))
    assert out.last_hidden_state.shape == (2, 6, 24) and out.pooler_output.shape == (2, 24)
    assert (out.hidden_states, out.attentions) == (None, None)


def test_the_first_state_is_tokens_plus_positions(model):
    states = model(IDS, output_hidden_states=True).hidden_states
    tables = model.embeddings.token_embedding.weight, model.embeddings.position_embedding.weight
    np.testing.assert_allclose(np.array(states[0][0]), np.array(tables[0][IDS[0]] + tables[1][:6]), rtol=1e-6)


def test_states_are_the_embeddings_and_every_layer_before_the_final_norm(model):
    out = model(IDS, output_hidden_states=True)
    assert len(out.hidden_states) == 1 + CONFIG.num_hidden_layers
    assert arrays_equal(model.rms_norm(out.hidden_states[-1]), out.last_hidden_state)


@pytest.mark.parametrize("mask", [None, mx.ones((1, 6), dtype=mx.int32)], ids=["no-mask", "ones"])
def test_a_late_token_changes_nothing_before_it(model, mask):
    other = mx.array([[1, 5, 7, 9, 12, EOS]])
    a, b = (model(ids, mask, output_hidden_states=True) for ids in (IDS, other))
    for x, y in zip(a.hidden_states, b.hidden_states, strict=True):
        assert arrays_equal(x[:, :4], y[:, :4])
        assert not arrays_equal(x[:, 4:], y[:, 4:])


def test_padding_changes_nothing_for_real_tokens(model):
    padded = mx.concatenate([IDS, mx.full((1, 3), EOS)], axis=1)
    mask = mx.array([[1] * 6 + [0] * 3])
    bare, full = model(IDS), model(padded, mask)
    np.testing.assert_allclose(
        np.array(full.last_hidden_state[:, :6]), np.array(bare.last_hidden_state), atol=1e-5
    )
    np.testing.assert_allclose(np.array(full.pooler_output), np.array(bare.pooler_output), atol=1e-5)


def test_the_mask_does_not_matter_to_real_tokens(model):
    padded = mx.concatenate([IDS, mx.full((1, 3), EOS)], axis=1)
    masked, unmasked = model(padded, mx.array([[1] * 6 + [0] * 3])), model(padded)
    np.testing.assert_allclose(
        np.array(masked.last_hidden_state[:, :6]), np.array(unmasked.last_hidden_state[:, :6]), atol=1e-5
    )


def test_padding_gives_no_nan(model):
    out = model(IDS, mx.zeros((1, 6), dtype=mx.int32))
    assert mx.isfinite(out.last_hidden_state).all()


def test_attentions_see_no_later_token_and_no_padding(model):
    mask = mx.array([[1, 1, 1, 1, 0, 0]])
    for weights in model(IDS, mask, output_attentions=True).attentions:
        assert weights.shape == (1, 3, 6, 6)
        np.testing.assert_allclose(np.array(weights.sum(-1)), 1, rtol=1e-5)
        rows = np.array(weights[0, 0])
        assert not np.triu(rows, k=1).any()
        assert rows[5, 4] == 0 and rows[5, 5] > 0


@pytest.mark.parametrize(
    ("ids", "mask", "position"),
    [
        ([3, 4, EOS, 5, EOS, EOS], None, 2),
        ([EOS, 4, 5, 6, 7, 8], None, 0),
        ([3, 4, EOS, EOS, EOS, EOS], [1, 1, 1, 0, 0, 0], 2),
        ([3, 4, 5, 6, 7, 8], None, 5),
        ([3, 4, 5, 6, 7, 8], [1, 1, 1, 1, 0, 0], 3),
        ([3, 4, 5, 6, 7, 8], [1, 1, 1, 1, 1, 1], 5),
    ],
    ids=["first-of-several", "at-once", "padded-with-eos", "none", "none-and-padding", "none-and-ones"],
)
def test_pooled_is_the_first_eos_or_else_the_last_real_token(model, ids, mask, position):
    out = model(mx.array([ids]), mask and mx.array([mask]))
    assert arrays_equal(out.pooler_output[0], out.last_hidden_state[0, position])


def test_each_text_of_a_batch_is_pooled_at_its_own_place(model):
    out = model(mx.array([[1, EOS, 2, 2], [1, 2, 2, EOS], [1, 2, 2, 2]]))
    for row, position in enumerate((1, 3, 3)):
        assert arrays_equal(out.pooler_output[row], out.last_hidden_state[row, position])


def test_inside_is_the_models_dtype_and_outside_float32(model):
    model.set_dtype(mx.float16)
    out = model(IDS, output_hidden_states=True)
    assert {state.dtype for state in out.hidden_states} == {mx.float16}
    assert out.last_hidden_state.dtype == out.pooler_output.dtype == mx.float32


def test_the_longest_text_is_taken(model):
    assert model(mx.ones((1, 10), dtype=mx.int32)).last_hidden_state.shape == (1, 10, 24)


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (mx.ones((1, 11), dtype=mx.int32), None, "hold 11 tokens; this model takes 1 to 10: truncate them"),
        (mx.ones((1, 0), dtype=mx.int32), None, "hold 0 tokens; this model takes 1 to 10"),
        (mx.ones((6,), dtype=mx.int32), None, r"input_ids must be \(B, T\) integers, not \(6,\)"),
        (mx.ones((1, 6)), None, r"input_ids must be \(B, T\) integers, not \(1, 6\) .*float32"),
        (IDS, mx.ones((1, 5)), r"attention_mask \(1, 5\) must have the shape \(1, 6\) of input_ids"),
        (IDS, mx.ones((6,)), r"attention_mask \(6,\) must have the shape \(1, 6\)"),
    ],
)
def test_wrong_inputs_are_refused(model, ids, mask, message):
    with pytest.raises(InputError, match=message):
        model(ids, mask)


def test_causal_mask_lets_padding_see_itself():
    mask = np.array(causal_mask(3, mx.array([[1, 0, 1]])))
    assert mask.shape == (1, 1, 3, 3)
    assert mask[0, 0].tolist() == [[True, False, False], [True, True, False], [True, False, True]]
