"""Writing config.json as Apple's first files and timm have it, without keys that only describe the source's files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import Aimv2Config, Aimv2TextConfig, Aimv2VisionConfig, AnyConfig
from ..errors import InputError
from ..presets import TRUNKS
from ..processing.image_config import ImageProcessorConfig
from ..processing.timm_settings import to_timm

TIMM_KEYS = (  # transformers takes a folder with `pretrained_cfg` for timm's
    "architecture", "num_classes", "num_features", "global_pool", "pretrained_cfg", "model_args", "label_names",
    "label_descriptions",
)  # fmt: skip
SOURCE_KEYS = (  # true of the source's own files only
    "quantization", "quantization_config", "auto_map", "dtype", "torch_dtype", "_name_or_path", "_commit_hash",
    *TIMM_KEYS,
)  # fmt: skip


def without_source(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json without the keys that describe only the source's files, at every level."""
    return {
        name: without_source(value) if isinstance(value, Mapping) else value
        for name, value in entry.items()
        if name not in SOURCE_KEYS
    }


def original_config(config: AnyConfig) -> dict[str, Any]:
    """The config.json of Apple's first files: fewer fields, other names."""
    if isinstance(config, Aimv2Config):
        text = _original_tower(config.text_config)
        text |= {
            "vocab_size": config.text_config.vocab_size,
            "eos_token_id": config.text_config.eos_token_id,
            "max_context_length": config.text_config.max_position_embeddings,
            "is_causal": True,
        }
        return {
            "model_type": "aimv2",
            "architectures": ["AIMv2Model"],
            "projection_dim": config.projection_dim,
            "init_temperature": 0.07,
            "max_logit_scale": config.max_logit_scale,
            "vision_config": original_config(config.vision_config) | {"num_queries": 1},
            "text_config": text,
        }
    data = _original_tower(config) | {"num_channels": config.num_channels, "patch_size": config.patch_size}
    return data if config.is_native else data | {"image_size": config.image_size}


def _original_tower(config: Aimv2VisionConfig | Aimv2TextConfig) -> dict[str, Any]:
    return {
        "model_type": "aimv2",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "qkv_bias": config.qkv_bias,
        "use_bias": config.mlp_bias,
        "rms_norm_eps": config.rms_norm_eps,
        "attention_dropout": 0.0,
        "projection_dropout": 0.0,
        "torch_dtype": "float32",
    }


def timm_config(config: AnyConfig, settings: ImageProcessorConfig) -> dict[str, Any]:
    """The config.json of a timm checkpoint of the trunk, without a classifier.

    The names are those of timm's `models/_hub.py` and `models/_pretrained.py`.

    Args:
        config: the model.
        settings: of the image processor; timm reads them from the same file.

    Raises:
        InputError: timm has no such model (it has vision encoders of the published widths, of fixed size, without a
            head), or cannot prepare images with these settings.
    """
    if isinstance(config, Aimv2Config) or config.is_native or config.use_head:
        raise InputError("timm has no place for an image-text pair, a pooling head or native resolution")
    shape = config.hidden_size, config.num_attention_heads
    sizes = {(trunk.hidden_size, trunk.num_attention_heads): size for size, trunk in TRUNKS.items()}
    if shape not in sizes:
        known = ", ".join(f"{size} ({width} wide, {heads} heads)" for (width, heads), size in sizes.items())
        raise InputError(f"timm has no AIMv2 of width {shape[0]} with {shape[1]} heads, only {known}")
    return {
        "architecture": f"aimv2_{sizes[shape].lower()}_patch{config.patch_size}_{config.image_size}",
        "num_classes": 0,
        "num_features": config.hidden_size,
        "global_pool": "avg",
        "pretrained_cfg": {
            "input_size": [config.num_channels, config.image_size, config.image_size],
            "fixed_input_size": True,
            **to_timm(settings, config.image_size),
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
