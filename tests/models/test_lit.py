import math
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlx_aimv2 import Aimv2Config, Aimv2Model
from mlx_aimv2.errors import InputError
from mlx_aimv2.models.lit import contrastive_loss, normalize


@pytest.fixture
def model(variants):
    model = Aimv2Model(variants["lit"])
    model.eval()
    return model


@pytest.fixture
def pixels():
    return mx.random.normal((3, 56, 56, 3), key=mx.random.key(7))


@pytest.fixture
def ids(variants):
    eos = variants["lit"].text_config.eos_token_id
    return mx.array([[1, 2, eos, eos], [3, 4, 5, eos]])


def test_logits_are_the_factor_times_the_cosine(model, pixels, ids):
    out = model(ids, pixels)
    image, text = np.array(model.get_image_features(pixels)), np.array(model.get_text_features(ids))
    cosine = image @ text.T
    cosine /= np.linalg.norm(image, axis=1)[:, None] * np.linalg.norm(text, axis=1)
    np.testing.assert_allclose(np.array(out.logits_per_image), cosine / 0.07, rtol=1e-4, atol=1e-5)
    assert out.logits_per_image.shape == (3, 2)
    assert mx.array_equal(out.logits_per_text, out.logits_per_image.T)


def test_embeds_are_the_features_at_unit_length(model, pixels, ids):
    out = model(ids, pixels)
    np.testing.assert_allclose(np.array(mx.linalg.norm(out.image_embeds, axis=1)), 1, rtol=1e-5)
    np.testing.assert_allclose(np.array(mx.linalg.norm(out.text_embeds, axis=1)), 1, rtol=1e-5)
    features = model.get_image_features(pixels)
    np.testing.assert_allclose(np.array(normalize(features)), np.array(out.image_embeds), rtol=1e-5)


def test_features_are_projected_and_not_normalized(model, pixels, ids):
    model.visual_projection.weight *= 3
    model.text_projection.weight *= 3
    pooled = model.vision_model(pixels).pooler_output, model.text_model(ids).pooler_output
    image, text = model.get_image_features(pixels), model.get_text_features(ids)
    np.testing.assert_allclose(
        np.array(image), np.array(model.visual_projection(pooled[0])), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        np.array(text), np.array(model.text_projection(pooled[1])), rtol=1e-5, atol=1e-6
    )
    assert not np.allclose(np.linalg.norm(np.array(image), axis=1), 1, atol=0.05)


@pytest.mark.parametrize(
    ("scale", "factor"),
    [(0.0, 1.0), (-3.0, 1.0), (2.0, math.exp(2)), (math.log(100), 100.0), (50.0, 100.0)],
)
def test_the_factor_is_clamped_between_one_and_its_maximum(model, scale, factor):
    model.logit_scale = mx.array(scale)
    assert model.logit_factor().item() == pytest.approx(factor, rel=1e-5)


def test_the_maximum_comes_from_the_config(variants):
    model = Aimv2Model(replace(variants["lit"], max_logit_scale=7.0))
    assert model.logit_factor().item() == pytest.approx(7.0, rel=1e-5)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16], ids=str)
def test_outputs_of_a_half_precision_model_are_float32(model, pixels, ids, dtype):
    model.set_dtype(dtype)
    out = model(ids, pixels, return_loss=False, output_hidden_states=True)
    assert {out.logits_per_image.dtype, out.image_embeds.dtype, out.text_embeds.dtype} == {mx.float32}
    assert {x.dtype for x in out.vision_model_output.hidden_states} == {dtype}
    assert {x.dtype for x in out.text_model_output.hidden_states} == {dtype}
    assert model.get_image_features(pixels).dtype == model.get_text_features(ids).dtype == mx.float32


def test_states_and_attentions_come_from_both_encoders(model, pixels, ids):
    out = model(ids, pixels, output_hidden_states=True, output_attentions=True)
    for encoder in (out.vision_model_output, out.text_model_output):
        assert (len(encoder.hidden_states), len(encoder.attentions)) == (3, 2)


def test_there_is_no_loss_unless_asked_for(model, pixels, ids):
    assert model(ids, pixels).loss is None


def test_loss_is_the_mean_of_both_cross_entropies(model, pixels, ids):
    out = model(ids, pixels[:2], return_loss=True)
    logits = np.array(out.logits_per_text, np.float64)

    def cross_entropy(rows):
        return np.mean([np.log(np.exp(row).sum()) - row[k] for k, row in enumerate(rows)])

    assert out.loss.item() == pytest.approx((cross_entropy(logits) + cross_entropy(logits.T)) / 2, rel=1e-5)


def test_loss_of_a_perfect_match_is_nothing_and_of_chance_the_logarithm_of_the_count():
    assert contrastive_loss(100 * mx.eye(4)).item() == pytest.approx(0, abs=1e-6)
    assert contrastive_loss(mx.zeros((4, 4))).item() == pytest.approx(math.log(4), rel=1e-6)


def test_loss_needs_a_text_for_each_image(model, pixels, ids):
    with pytest.raises(InputError, match="return_loss needs a text for each image, not 2 texts for 3 images"):
        model(ids, pixels, return_loss=True)


def test_a_pair_without_a_head_is_refused(variants):
    with pytest.raises(InputError, match="needs a vision config with use_head=True"):
        Aimv2Model(Aimv2Config(variants["fixed"], variants["lit"].text_config))


def test_normalizing_leaves_a_zero_vector_at_zero():
    assert mx.array_equal(normalize(mx.zeros((1, 4))), mx.zeros((1, 4)))


def test_normalizing_is_done_in_float32():
    unit = normalize(mx.full((1, 4), 60000.0, dtype=mx.float16))  # its square is infinite in float16
    assert unit.dtype == mx.float32
    np.testing.assert_allclose(np.array(unit), 0.5, rtol=1e-6)


def test_the_mask_reaches_the_text_encoder(model, pixels, ids):
    without_eos = mx.array([[1, 2, 3, 4]])
    short = model(without_eos[:, :2], pixels).text_embeds
    masked = model(without_eos, pixels, attention_mask=mx.array([[1, 1, 0, 0]])).text_embeds
    np.testing.assert_allclose(np.array(masked), np.array(short), atol=1e-5)
