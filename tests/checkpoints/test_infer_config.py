import re
from dataclasses import replace

import pytest

from mlx_aimv2 import Aimv2Config, Aimv2VisionConfig
from mlx_aimv2.checkpoints.foreign_configs import original_config
from mlx_aimv2.checkpoints.infer_config import infer_config
from mlx_aimv2.errors import ConfigError, LayoutError


@pytest.fixture
def shapes_of(canonical):
    return lambda config: {name: tuple(x.shape) for name, x in canonical(config).items()}


def plain(config):
    """The same configuration without what its file had beside it."""
    if isinstance(config, Aimv2Config):
        vision, text = plain(config.vision_config), replace(config.text_config, extra={})
        config = replace(config, vision_config=vision, text_config=text)
    return replace(config, extra={})


def without_positions(config):
    """A native model's image_size is in no file of the first era."""
    return replace(config, image_size=224) if getattr(config, "is_native", False) else config


@pytest.mark.parametrize("era", ["original", "transformers"])
def test_a_config_of_either_era_is_completed(config, shapes_of, era):
    data = original_config(config) if era == "original" else config.to_dict()
    if era == "transformers":
        assert plain(infer_config(shapes_of(config), data)) == config
    else:
        inferred = plain(infer_config(shapes_of(config), data))
        expected = without_positions(config)
        if isinstance(config, Aimv2Config):
            expected = replace(expected, logit_scale_init_value=inferred.logit_scale_init_value)
        assert inferred == expected


@pytest.mark.parametrize("kind", ["fixed", "native", "head"])
@pytest.mark.parametrize("claim", [True, False])
def test_head_and_positions_are_as_the_tensors_have_them(variants, shapes_of, kind, claim):
    config = variants[kind]
    data = {**config.to_dict(), "use_head": claim, "is_native": claim}
    assert plain(infer_config(shapes_of(config), data)) == config


def test_nulls_are_filled_in_from_the_tensors(variants, shapes_of):
    config = variants["patch-16"]
    data = {**dict.fromkeys(config.to_dict()), "num_attention_heads": config.num_attention_heads}
    assert plain(infer_config(shapes_of(config), data)) == config


def test_a_projection_that_is_null_is_filled_in(variants, shapes_of):
    data = {**variants["lit"].to_dict(), "projection_dim": None}
    assert infer_config(shapes_of(variants["lit"]), data).projection_dim == 32


def test_without_a_config_the_heads_are_of_the_published_width(shapes_of):
    config = Aimv2VisionConfig(hidden_size=256, intermediate_size=96, num_hidden_layers=1, use_head=False)
    inferred = infer_config(shapes_of(replace(config, num_attention_heads=2, image_size=42)), {})
    assert inferred == replace(config, num_attention_heads=2, image_size=42)


def test_a_pair_without_a_config_is_read_off_its_tensors(variants, shapes_of):
    towers = {"vision_config": {"num_attention_heads": 2}, "text_config": {"num_attention_heads": 2}}
    inferred = infer_config(shapes_of(variants["lit"]), towers)
    assert plain(inferred) == variants["lit"]
    assert inferred.text_config.eos_token_id == inferred.text_config.vocab_size - 1


def test_a_vision_encoder_taken_out_of_a_pair_reads_its_part_of_the_config(variants, shapes_of):
    pair = variants["lit"]
    inferred = infer_config(shapes_of(pair.vision_config), pair.to_dict())
    assert plain(inferred) == pair.vision_config


def test_what_the_file_says_of_sizes_stands_for_the_comparison(variants, shapes_of):
    data = {**variants["fixed"].to_dict(), "num_hidden_layers": 5}
    assert infer_config(shapes_of(variants["fixed"]), data).num_hidden_layers == 5


def test_what_means_nothing_is_kept(variants, shapes_of):
    config = infer_config(shapes_of(variants["lit"]), {**variants["lit"].to_dict(), "note": "x"})
    assert config.extra["note"] == "x"


@pytest.mark.parametrize(
    ("kind", "drop", "data", "error", "message"),
    [
        ("fixed", "", {}, ConfigError, "num_attention_heads is missing, and a width of 64 does not tell it"),
        ("fixed", "encoder.layers.0", None, LayoutError, "no tensors below encoder.layers.0"),
        (
            "fixed",
            "rms_norm.weight",
            None,
            LayoutError,
            "no tensor rms_norm.weight to read the model's size from",
        ),
        (
            "fixed",
            "embeddings.patch_embed.weight",
            None,
            LayoutError,
            "no tensor embeddings.patch_embed.weight",
        ),
        ("lit", "visual_projection", None, LayoutError, "no tensor visual_projection.weight"),
        ("lit", "text_model.embeddings.token", None, LayoutError, "no tensor text_model.embeddings.token"),
        ("lit", "vision_model.encoder", None, LayoutError, "no tensors below vision_model.encoder.layers.0"),
        ("lit", "", {"vision_config": 3}, ConfigError, "vision_config must be an object, not int"),
        ("lit", "", {"text_config": [1]}, ConfigError, r"text_config must be an object, not list"),
        ("lit", "", {"projection_dim": "x"}, ConfigError, "projection_dim must be a whole number"),
    ],
)
def test_what_cannot_be_known_is_refused(variants, shapes_of, kind, drop, data, error, message):
    shapes = shapes_of(variants[kind])
    shapes = {name: shape for name, shape in shapes.items() if not drop or not name.startswith(drop)}
    data = {} if data == {} else {**variants[kind].to_dict(), **(data or {})}
    with pytest.raises(error, match=message):
        infer_config(shapes, data)


def test_a_tensor_of_too_few_sides_is_refused(variants, shapes_of):
    shapes = {**shapes_of(variants["fixed"]), "embeddings.patch_embed.weight": (64,)}
    with pytest.raises(LayoutError, match=r"no tensor embeddings\.patch_embed\.weight to read"):
        infer_config(shapes, variants["fixed"].to_dict())


@pytest.mark.parametrize(
    ("kind", "part", "field", "value", "told"),
    [
        ("fixed", None, "num_hidden_layers", 10**9, 2),
        ("fixed", None, "hidden_size", 10**9, 64),
        ("fixed", None, "hidden_size", 513, 64),
        ("fixed", None, "intermediate_size", 10**15, 128),
        ("fixed", None, "image_size", 10**6, 56),
        ("fixed", None, "patch_size", float("inf"), 14),
        ("native", None, "num_channels", 1e300, 3),
        ("lit", "vision_config", "num_hidden_layers", 1000, 2),
        ("lit", "text_config", "vocab_size", 10**12, 514),
        ("lit", "text_config", "max_position_embeddings", 10**6, 77),
        ("lit", "text_config", "max_context_length", 10**6, 77),
        ("lit", None, "projection_dim", 10**6, 32),
    ],
)
def test_a_size_far_beyond_the_tensors_is_refused(variants, shapes_of, kind, part, field, value, told):
    data = variants[kind].to_dict()
    (data[part] if part else data)[field] = value
    with pytest.raises(
        ConfigError, match=f"^config: {field} is {re.escape(str(value))}, and the tensors say {told}: "
    ):
        infer_config(shapes_of(variants[kind]), data)
