"""What the tensors themselves say of the configuration.

Older config.json files lack fields, and class defaults elsewhere are wrong for most published checkpoints, so
whether there is a head, a position table or a bias is read off the tensors, never off a name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..config import Aimv2Config, Aimv2TextConfig, Aimv2VisionConfig, AnyConfig
from ..errors import ConfigError, LayoutError

HEAD_DIM = 128  # of every published model; only used where a config does not give the number of heads
MOST_OFF = 8  # times what the tensors say; beyond it, a size is no slip but would fill the memory
Shapes = Mapping[str, tuple[int, ...]]
Fields = dict[str, Any]


def deduce_config(shapes: Shapes, data: Mapping[str, Any]) -> AnyConfig:
    """The configuration of a checkpoint.

    Args:
        shapes: the canonical tensor names and shapes; quantized weights may be packed.
        data: config.json, of either era or of another library; empty where there is none.

    Returns:
        `Aimv2Config` for an image-text pair, else `Aimv2VisionConfig`. Head and native positions are as the
        tensors have them; other fields come from ``data``, and from the tensors where it is silent.

    Raises:
        ConfigError: a value of ``data`` is wrong, or a field is missing and the tensors do not tell it.
        LayoutError: the tensors are those of no AIMv2 model.
    """
    is_pair = any(name.startswith("text_model.") for name in shapes)
    vision_data = data.get("vision_config", {} if is_pair else data)
    if not isinstance(vision_data, Mapping):
        raise ConfigError(f"config: vision_config must be an object, not {type(vision_data).__name__}")
    vision = Aimv2VisionConfig.from_dict(
        _vision_fields(shapes, vision_data, "vision_model." if is_pair else "")
    )
    if not is_pair:
        return vision
    text_data = data.get("text_config", {})
    if not isinstance(text_data, Mapping):
        raise ConfigError(f"config: text_config must be an object, not {type(text_data).__name__}")
    text = Aimv2TextConfig.from_dict(_text_fields(shapes, text_data))
    rest = {key: value for key, value in _given(data).items() if key not in ("vision_config", "text_config")}
    told = {"projection_dim": _size(shapes, "visual_projection.weight", 0)}
    _check_sizes(told, rest)
    rest = {**told, **rest}
    pair = Aimv2Config.from_dict(rest)
    return Aimv2Config(vision, text, *_scalars(pair), extra=pair.extra)


def _scalars(pair: Aimv2Config) -> tuple[int, float, float]:
    return pair.projection_dim, pair.logit_scale_init_value, pair.max_logit_scale


def _size(shapes: Shapes, name: str, axis: int) -> int:
    try:
        return shapes[name][axis]
    except (KeyError, IndexError):
        raise LayoutError(
            f"not an AIMv2 checkpoint: no tensor {name} to read the model's size from"
        ) from None


def _tower(shapes: Shapes, data: Mapping[str, Any], prefix: str) -> Fields:
    """Sizes that both encoders have."""
    layer = f"{prefix}encoder.layers."
    numbers = {name[len(layer) :].split(".")[0] for name in shapes if name.startswith(layer)}
    if "0" not in numbers:
        raise LayoutError(f"not an AIMv2 checkpoint: no tensors below {layer}0")
    dim = _size(shapes, f"{prefix}rms_norm.weight", 0)
    told: Fields = {
        "hidden_size": dim,
        "intermediate_size": _size(shapes, f"{layer}0.ffn.gate_proj.weight", 0),
        "num_hidden_layers": len(numbers),
        "mlp_bias": f"{layer}0.ffn.gate_proj.bias" in shapes,
        "qkv_bias": f"{layer}0.attention.q_proj.bias" in shapes,
    }
    if "use_bias" in data:
        told.pop("mlp_bias")
    if dim % HEAD_DIM == 0:
        told["num_attention_heads"] = dim // HEAD_DIM
    elif data.get("num_attention_heads") is None:
        raise ConfigError(f"config: num_attention_heads is missing, and a width of {dim} does not tell it")
    return told


def _check_sizes(told: Fields, data: Mapping[str, Any]) -> None:
    """Refuse sizes that no model should be built with before it can be compared, tensor by tensor.

    Raises:
        ConfigError: the file says far more than the tensors do.
    """
    for name, size in told.items():
        value = data.get(name)
        counts = isinstance(size, int) and not isinstance(size, bool)
        if counts and isinstance(value, (int, float)) and value > MOST_OFF * max(size, 1):
            raise ConfigError(
                f"config: {name} is {value}, and the tensors say {size}: take the config.json that was written"
                " with these weights"
            )


def _given(data: Mapping[str, Any]) -> Fields:
    return {key: value for key, value in data.items() if value is not None}


def _vision_fields(shapes: Shapes, data: Mapping[str, Any], prefix: str) -> Fields:
    kernel = f"{prefix}embeddings.patch_embed.weight"
    table = f"{prefix}embeddings.position_embedding.weight"
    told = _tower(shapes, data, prefix)
    told["patch_size"], told["num_channels"] = _size(shapes, kernel, 1), _size(shapes, kernel, 3)
    if table in shapes:
        told["image_size"] = math.isqrt(_size(shapes, table, 0)) * told["patch_size"]
    _check_sizes(told, data)
    return {
        **told,
        **_given(data),
        "is_native": table not in shapes,
        "use_head": f"{prefix}head.cls_token" in shapes,
    }


def _text_fields(shapes: Shapes, data: Mapping[str, Any]) -> Fields:
    told = _tower(shapes, data, "text_model.")
    told["vocab_size"] = _size(shapes, "text_model.embeddings.token_embedding.weight", 0)
    told["eos_token_id"] = told["vocab_size"] - 1  # where CLIP vocabularies, and all published pairs, have it
    length = "max_context_length" if "max_context_length" in data else "max_position_embeddings"
    told[length] = _size(shapes, "text_model.embeddings.position_embedding.weight", 0)
    _check_sizes(told, data)
    return {**told, **_given(data)}
