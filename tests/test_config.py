import json
import math
from dataclasses import FrozenInstanceError, fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_aimv2 import Aimv2Config, Aimv2TextConfig, Aimv2VisionConfig
from mlx_aimv2.errors import ConfigError

APPLE_VISION = {
    "model_type": "aimv2",
    "architectures": ["AIMv2Model"],
    "auto_map": {"AutoModel": "modeling_aimv2.AIMv2Model"},
    "hidden_size": 1536,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 336,
    "patch_size": 14,
    "qkv_bias": False,
    "use_bias": False,
    "rms_norm_eps": 1e-05,
    "attention_dropout": 0.0,
    "projection_dropout": 0.0,
    "torch_dtype": "float32",
    "transformers_version": "4.46.3",
}
APPLE_TEXT = {
    "model_type": "aimv2",
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "vocab_size": 49408,
    "eos_token_id": 49407,
    "max_context_length": 77,
    "is_causal": True,
}
APPLE_PAIR = {
    "model_type": "aimv2",
    "projection_dim": 768,
    "init_temperature": 0.07,
    "max_logit_scale": 100.0,
    "text_config": APPLE_TEXT,
    "vision_config": {**APPLE_VISION, "num_queries": 1},
}


def test_defaults_are_the_published_large_models():
    vision, text, pair = Aimv2VisionConfig(), Aimv2TextConfig(), Aimv2Config()
    assert (vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers) == (1024, 2816, 24)
    assert (vision.num_attention_heads, vision.patch_size, vision.grid) == (8, 14, 16)
    assert (text.hidden_size, text.num_hidden_layers, text.max_position_embeddings) == (768, 12, 77)
    assert (pair.projection_dim, pair.max_logit_scale) == (768, 100.0)
    assert math.exp(pair.logit_scale_init_value) == pytest.approx(1 / 0.07)


def test_original_vision_config_is_read():
    config = Aimv2VisionConfig.from_dict(APPLE_VISION)
    assert (config.hidden_size, config.num_attention_heads, config.image_size) == (1536, 12, 336)
    assert (config.qkv_bias, config.mlp_bias, config.rms_norm_eps) == (False, False, 1e-5)


def test_original_pair_config_is_read():
    config = Aimv2Config.from_dict(APPLE_PAIR)
    assert config.text_config.max_position_embeddings == 77
    assert config.logit_scale_init_value == pytest.approx(math.log(1 / 0.07))
    assert config.vision_config.extra["num_queries"] == 1


def test_what_means_nothing_here_is_kept():
    config = Aimv2VisionConfig.from_dict(APPLE_VISION)
    assert config.extra["auto_map"] == APPLE_VISION["auto_map"]
    assert config.extra["projection_dropout"] == 0.0
    assert config.to_dict()["auto_map"] == APPLE_VISION["auto_map"]


def test_both_biases_of_the_original_are_both_of_transformers():
    config = Aimv2VisionConfig.from_dict({"use_bias": True, "qkv_bias": True})
    assert (config.qkv_bias, config.mlp_bias) == (True, True)


def test_the_newer_length_wins_over_the_older():
    config = Aimv2TextConfig.from_dict({"max_context_length": 20, "max_position_embeddings": 30})
    assert config.max_position_embeddings == 30


def test_the_newer_logit_scale_wins_over_the_older_temperature():
    config = Aimv2Config.from_dict({"init_temperature": 0.5, "logit_scale_init_value": 3.0})
    assert config.logit_scale_init_value == 3.0


def test_nulls_stand_for_the_default():
    nothing = {field.name: None for field in fields(Aimv2VisionConfig)}
    assert Aimv2VisionConfig.from_dict(nothing).hidden_size == 1024


def test_a_square_size_may_be_a_pair():
    config = Aimv2VisionConfig.from_dict({"image_size": [448, 448], "patch_size": [14, 14]})
    assert (config.image_size, config.patch_size) == (448, 14)


def test_an_eos_may_be_a_list_of_one():
    assert Aimv2TextConfig.from_dict({"eos_token_id": [7]}).eos_token_id == 7


def test_vision_is_the_vision_encoders_part():
    pair, vision = Aimv2Config.from_dict(APPLE_PAIR), Aimv2VisionConfig.from_dict(APPLE_VISION)
    assert pair.vision is pair.vision_config and vision.vision is vision


def test_written_and_read_again_it_is_the_same(config):
    again = type(config).from_dict(json.loads(json.dumps(config.to_dict())))
    assert again.to_dict() == config.to_dict()
    for field in fields(config):
        if field.name not in ("extra", "vision_config", "text_config"):
            assert getattr(again, field.name) == getattr(config, field.name)


@pytest.mark.parametrize(
    ("kind", "data"), [(Aimv2VisionConfig, APPLE_VISION), (Aimv2Config, APPLE_PAIR)], ids=["vision", "pair"]
)
def test_what_was_read_is_written_under_transformers_names(kind, data):
    first = kind.from_dict(data)
    again = kind.from_dict(json.loads(json.dumps(first.to_dict())))
    assert again.to_dict() == first.to_dict()


@pytest.mark.parametrize(
    ("config", "model_type", "architectures"),
    [
        (Aimv2VisionConfig(), "aimv2_vision_model", ["Aimv2VisionModel"]),
        (Aimv2TextConfig(), "aimv2_text_model", None),
        (Aimv2Config(), "aimv2", ["Aimv2Model"]),
    ],
)
def test_written_configs_name_their_kind(config, model_type, architectures):
    written = config.to_dict()
    assert (written["model_type"], written.get("architectures")) == (model_type, architectures)
    assert "extra" not in written


def test_parts_of_a_pair_are_written_in_full():
    written = Aimv2Config().to_dict()
    assert written["vision_config"]["model_type"] == "aimv2_vision_model"
    assert written["text_config"]["max_position_embeddings"] == 77


def test_configs_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Aimv2VisionConfig().hidden_size = 3


def test_image_size_means_nothing_to_a_native_model():
    assert Aimv2VisionConfig(is_native=True, image_size=1).image_size == 1


@pytest.mark.parametrize(
    ("cls", "data", "message"),
    [
        (
            Aimv2VisionConfig,
            {"hidden_size": 0},
            "hidden_size must be a whole number from 1 to 1048576, not 0",
        ),
        (Aimv2VisionConfig, {"hidden_size": 2**21}, "hidden_size must be .*, not 2097152"),
        (Aimv2VisionConfig, {"hidden_size": "1024"}, "hidden_size must be a whole number .*, not '1024'"),
        (Aimv2VisionConfig, {"hidden_size": 64.0}, "hidden_size must be .*, not 64.0"),
        (Aimv2VisionConfig, {"num_hidden_layers": True}, "num_hidden_layers must be .*, not True"),
        (Aimv2VisionConfig, {"num_attention_heads": 7}, "1024 is not a multiple of num_attention_heads 7"),
        (Aimv2VisionConfig, {"hidden_act": "tanh"}, "hidden_act 'tanh' is not one of silu, gelu"),
        (Aimv2VisionConfig, {"hidden_act": ["silu"]}, r"hidden_act \['silu'\] is not one of silu"),
        (Aimv2VisionConfig, {"rms_norm_eps": 0}, "rms_norm_eps must be a number between 0 and 1, not 0"),
        (Aimv2VisionConfig, {"rms_norm_eps": "1e-5"}, "rms_norm_eps must be .*, not '1e-5'"),
        (Aimv2VisionConfig, {"rms_norm_eps": math.nan}, "rms_norm_eps must be .*, not nan"),
        (Aimv2VisionConfig, {"qkv_bias": 1}, "qkv_bias must be true or false, not 1"),
        (Aimv2VisionConfig, {"mlp_bias": "no"}, "mlp_bias must be true or false, not 'no'"),
        (Aimv2VisionConfig, {"use_bias": True}, "use_bias True with qkv_bias False; only both or none"),
        (Aimv2VisionConfig, {"image_size": [224, 336]}, r"image_size \[224, 336\] is not square"),
        (Aimv2VisionConfig, {"patch_size": [14]}, r"patch_size \[14\] is not square"),
        (Aimv2VisionConfig, {"image_size": 13}, "image_size 13 is under one patch of 14"),
        (Aimv2VisionConfig, {"num_channels": -3}, "num_channels must be .*, not -3"),
        (
            Aimv2VisionConfig,
            {"is_native": True, "hidden_size": 6, "num_attention_heads": 1},
            "needs hidden_size in fours, not 6",
        ),
        (Aimv2TextConfig, {"eos_token_id": 49408}, "eos_token_id 49408 is not an id below vocab_size 49408"),
        (Aimv2TextConfig, {"eos_token_id": [1, 2]}, r"eos_token_id \[1, 2\] is not an id"),
        (Aimv2TextConfig, {"is_causal": False}, "is_causal is False; AIMv2's text encoder is causal"),
        (Aimv2TextConfig, {"max_context_length": 0}, "max_position_embeddings must be .*, not 0"),
        (Aimv2Config, {"projection_dim": 0}, "projection_dim must be .*, not 0"),
        (Aimv2Config, {"max_logit_scale": 0.5}, "max_logit_scale must be .* at least 1, not 0.5"),
        (Aimv2Config, {"max_logit_scale": math.inf}, "max_logit_scale must be a finite number"),
        (Aimv2Config, {"init_temperature": 0}, "init_temperature must be a finite number above 0, not 0"),
        (Aimv2Config, {"init_temperature": "warm"}, "init_temperature must be .*, not 'warm'"),
        (Aimv2Config, {"text_config": []}, "text_config must be an object, not list"),
        (Aimv2Config, {"vision_config": "large"}, "vision_config must be an object, not str"),
        (Aimv2Config, {"vision_config": {"hidden_size": -1}}, "hidden_size must be .*, not -1"),
        (Aimv2VisionConfig, {"is_native": "yes"}, "is_native must be true or false, not 'yes'"),
        (Aimv2VisionConfig, {"use_head": 1}, "use_head must be true or false, not 1"),
        (Aimv2VisionConfig, {"initializer_range": "x"}, "initializer_range must be a finite number, not 'x'"),
        (Aimv2VisionConfig, {"num_hidden_layers": 9999}, "num_hidden_layers must be .* to 1024, not 9999"),
        (
            Aimv2Config,
            {"logit_scale_init_value": math.nan},
            "logit_scale_init_value must be a finite number, not nan",
        ),
        (Aimv2Config, {"init_temperature": math.inf}, "init_temperature must be .*, not inf"),
    ],
)
def test_wrong_values_are_refused_by_name(cls, data, message):
    with pytest.raises(ConfigError, match=message):
        cls.from_dict(data)


KEYS = sorted(
    {field.name for cls in (Aimv2VisionConfig, Aimv2TextConfig, Aimv2Config) for field in fields(cls)}
)
ALIASES = ["max_context_length", "init_temperature", "use_bias", "is_causal", "model_type"]
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(1e-5)
VALUES = st.recursive(
    SCALARS, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x), max_leaves=4
)
OBJECTS = st.dictionaries(st.sampled_from(KEYS + ALIASES), st.integers(1, 64) | VALUES, max_size=8)


@settings(max_examples=120, deadline=None)
@given(
    OBJECTS,
    OBJECTS,
    OBJECTS,
    st.sampled_from([Aimv2Config.from_dict, Aimv2VisionConfig.from_dict, Aimv2TextConfig.from_dict]),
)
def test_whatever_a_file_holds_is_a_config_or_a_config_error(data, vision, text, read):
    if read == Aimv2Config.from_dict:
        data = {"vision_config": vision, "text_config": text, **data}
    try:
        config = read(data)
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    written = [json.dumps(x.to_dict(), sort_keys=True) for x in (config, read(config.to_dict()))]
    assert written[0] == written[1]
