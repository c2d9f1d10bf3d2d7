"""Inference of the configuration from config.json and the shapes of the tensors.

Older config.json files lack fields, and transformers' defaults are wrong for most published checkpoints. So the
tensors, never a name, say whether there is a head, a position table or a bias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..config import Aimv2Config, Aimv2TextConfig, Aimv2VisionConfig, AnyConfig
from ..errors import ConfigError, LayoutError

HEAD_DIM = 128  # of every published model; used if config.json lacks the number of heads
MAX_FACTOR = 8  # of a size in config.json, relative to the tensors: larger sizes could fill the memory
Shapes = Mapping[str, tuple[int, ...]]
Fields = dict[str, Any]


def infer_config(shapes: Shapes, data: Mapping[str, Any]) -> AnyConfig:
    """The configuration of a checkpoint.

    Args:
        shapes: the canonical tensor names and shapes; quantized weights may be packed.
        data: config.json of transformers, of Apple's first files or of another library; empty without one.

    Returns:
        `Aimv2Config` for an image-text pair, else `Aimv2VisionConfig`. Head and native positions come from the
        tensors; other fields from ``data``, or from the tensors if ``data`` lacks them.

    Raises:
        ConfigError: a value of ``data`` is wrong, or a missing field cannot be inferred.
        LayoutError: the tensors belong to no AIMv2 model.
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
    rest = {
        key: value for key, value in _present(data).items() if key not in ("vision_config", "text_config")
    }
    inferred = {"projection_dim": _size(shapes, "visual_projection.weight", 0)}
    _check_sizes(inferred, rest)
    pair = Aimv2Config.from_dict({**inferred, **rest})
    return replace(pair, vision_config=vision, text_config=text)


def _size(shapes: Shapes, name: str, axis: int) -> int:
    try:
        return shapes[name][axis]
    except (KeyError, IndexError):
        raise LayoutError(
            f"not an AIMv2 checkpoint: no tensor {name} to read the model's size from"
        ) from None


def _tower(shapes: Shapes, data: Mapping[str, Any], prefix: str) -> Fields:
    """The fields that both encoders have, from the tensors."""
    layer = f"{prefix}encoder.layers."
    numbers = {name[len(layer) :].split(".")[0] for name in shapes if name.startswith(layer)}
    if "0" not in numbers:
        raise LayoutError(f"not an AIMv2 checkpoint: no tensors below {layer}0")
    dim = _size(shapes, f"{prefix}rms_norm.weight", 0)
    inferred: Fields = {
        "hidden_size": dim,
        "intermediate_size": _size(shapes, f"{layer}0.ffn.gate_proj.weight", 0),
        "num_hidden_layers": len(numbers),
        "mlp_bias": f"{layer}0.ffn.gate_proj.bias" in shapes,
        "qkv_bias": f"{layer}0.attention.q_proj.bias" in shapes,
    }
    if "use_bias" in data:
        inferred.pop("mlp_bias")
    if dim % HEAD_DIM == 0:
        inferred["num_attention_heads"] = dim // HEAD_DIM
    elif data.get("num_attention_heads") is None:
        raise ConfigError(f"config: num_attention_heads is missing, and a width of {dim} does not tell it")
    return inferred


def _check_sizes(inferred: Fields, data: Mapping[str, Any]) -> None:
    """Raise ConfigError for a size far above that of the tensors, before a model of it is built."""
    for name, size in inferred.items():
        value = data.get(name)
        is_count = isinstance(size, int) and not isinstance(size, bool)
        if is_count and isinstance(value, (int, float)) and value > MAX_FACTOR * max(size, 1):
            raise ConfigError(
                f"config: {name} is {value}, and the tensors say {size}: take the config.json that was written"
                " with these weights"
            )


def _present(data: Mapping[str, Any]) -> Fields:
    return {key: value for key, value in data.items() if value is not None}


def _vision_fields(shapes: Shapes, data: Mapping[str, Any], prefix: str) -> Fields:
    kernel = f"{prefix}embeddings.patch_embed.weight"
    table = f"{prefix}embeddings.position_embedding.weight"
    inferred = _tower(shapes, data, prefix)
    inferred["patch_size"], inferred["num_channels"] = _size(shapes, kernel, 1), _size(shapes, kernel, 3)
    if table in shapes:
        inferred["image_size"] = math.isqrt(_size(shapes, table, 0)) * inferred["patch_size"]
    _check_sizes(inferred, data)
    return {
        **inferred,
        **_present(data),
        "is_native": table not in shapes,
        "use_head": f"{prefix}head.cls_token" in shapes,
    }


def _text_fields(shapes: Shapes, data: Mapping[str, Any]) -> Fields:
    inferred = _tower(shapes, data, "text_model.")
    vocab_size = _size(shapes, "text_model.embeddings.token_embedding.weight", 0)
    inferred |= {"vocab_size": vocab_size, "eos_token_id": vocab_size - 1}  # EOS is last in CLIP vocabularies
    length = "max_context_length" if "max_context_length" in data else "max_position_embeddings"
    inferred[length] = _size(shapes, "text_model.embeddings.position_embedding.weight", 0)
    _check_sizes(inferred, data)
    return {**inferred, **_present(data)}
