"""Model configurations, read from Apple's original config.json or from that of transformers.

Fields have the names of transformers (`models/aimv2/configuration_aimv2.py`). Apple's original files name some of
them differently, lack some and add others; `from_dict` reads both. Unknown keys are kept in ``extra``, so that a
checkpoint is written with every key that it was read with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from .errors import ConfigError

ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "quick_gelu", "relu")
MAX_SIZE = 1 << 20  # far above any real dimension: a larger one means a damaged or hostile file
MAX_GRID = 1024  # patches on a side
MAX_LAYERS = 1024  # every layer is built before its tensors are checked

Json = Mapping[str, Any]
WRITTEN = ("model_type", "architectures")  # `to_dict` writes them, whatever the file had


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _at_least_one(config: object, *names: str, most: int = MAX_SIZE) -> None:
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise ConfigError(f"config: {name} must be a whole number from 1 to {most}, not {value!r}")


def _numbers(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not _is_number(value) or not abs(value) <= MAX_SIZE:
            raise ConfigError(f"config: {name} must be a finite number, not {value!r}")


def _switches(config: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(config, name), bool):
            raise ConfigError(f"config: {name} must be true or false, not {getattr(config, name)!r}")


def _check_tower(config: Aimv2VisionConfig | Aimv2TextConfig) -> None:
    _at_least_one(config, "hidden_size", "intermediate_size", "num_attention_heads")
    _at_least_one(config, "num_hidden_layers", most=MAX_LAYERS)
    if config.hidden_size % config.num_attention_heads:
        raise ConfigError(
            f"config: hidden_size {config.hidden_size} is not a multiple of"
            f" num_attention_heads {config.num_attention_heads}"
        )
    if config.hidden_act not in ACTIVATIONS:
        raise ConfigError(f"config: hidden_act {config.hidden_act!r} is not one of {', '.join(ACTIVATIONS)}")
    eps = config.rms_norm_eps
    if not _is_number(eps) or not 0 < eps < 1:
        raise ConfigError(f"config: rms_norm_eps must be a number between 0 and 1, not {eps!r}")
    _numbers(config, "attention_dropout", "initializer_range")
    _switches(config, "qkv_bias", "mlp_bias")


@dataclass(frozen=True)
class Aimv2VisionConfig:
    """The vision encoder (defaults: large, 224 pixels)."""

    is_pair: ClassVar[bool] = False
    hidden_size: int = 1024  # D, the width of a token
    intermediate_size: int = 2816  # width inside the gated MLP
    num_hidden_layers: int = 24
    num_attention_heads: int = 8
    num_channels: int = 3
    image_size: int = 224  # pixels on a side; without meaning when is_native
    patch_size: int = 14  # pixels on a side
    hidden_act: str = "silu"
    attention_dropout: float = 0.0  # kept for the file; no published model uses it
    rms_norm_eps: float = 1e-5
    qkv_bias: bool = False  # biases in q, k, v and the attention's output projection
    mlp_bias: bool = False
    initializer_range: float = 0.02
    use_head: bool = True  # an attention-pooling head after the last norm
    is_native: bool = False  # sine-cosine positions of any grid, instead of a learned table
    extra: Json = field(default_factory=dict, hash=False)  # unknown keys of the file

    def __post_init__(self) -> None:
        _check_tower(self)
        _at_least_one(self, "num_channels", "patch_size", "image_size")
        _switches(self, "use_head", "is_native")
        if not self.is_native and self.image_size < self.patch_size:
            raise ConfigError(f"config: image_size {self.image_size} is under one patch of {self.patch_size}")
        if not self.is_native and self.grid > MAX_GRID:
            raise ConfigError(
                f"config: image_size {self.image_size} gives more than {MAX_GRID} patches on a side"
            )
        if self.is_native and self.hidden_size % 4:
            raise ConfigError(f"config: a native model needs hidden_size in fours, not {self.hidden_size}")

    @property
    def vision(self) -> Aimv2VisionConfig:
        """This configuration; of an image-text pair, that of its vision encoder."""
        return self

    @property
    def grid(self) -> int:
        """Patches on a side of a fixed-size image."""
        return self.image_size // self.patch_size

    @classmethod
    def from_dict(cls, data: Json) -> Aimv2VisionConfig:
        """Read the vision part of a config.json, of Apple or transformers.

        Raises:
            ConfigError: a value has the wrong type or contradicts another.
        """
        data = _one_bias_switch(data)
        for name in ("image_size", "patch_size"):
            data = _square(data, name)
        return _build(cls, data)

    def to_dict(self) -> dict[str, Any]:
        """The keys of transformers, and the unknown keys of the file."""
        return {
            **_plain(self),
            "model_type": "aimv2_vision_model",
            "architectures": ["Aimv2VisionModel"],
        }


@dataclass(frozen=True)
class Aimv2TextConfig:
    """The causal text encoder of the LiT pair."""

    vocab_size: int = 49408
    hidden_size: int = 768  # D, the width of a token
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 6
    max_position_embeddings: int = 77  # T at most, BOS and EOS included
    hidden_act: str = "silu"
    attention_dropout: float = 0.0
    eos_token_id: int = 49407  # a text is pooled at the first of these
    rms_norm_eps: float = 1e-5
    qkv_bias: bool = False
    mlp_bias: bool = False
    initializer_range: float = 0.02
    extra: Json = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_tower(self)
        _at_least_one(self, "vocab_size", "max_position_embeddings")
        eos = self.eos_token_id
        if not isinstance(eos, int) or isinstance(eos, bool) or not 0 <= eos < self.vocab_size:
            raise ConfigError(f"config: eos_token_id {eos!r} is not an id below vocab_size {self.vocab_size}")

    @classmethod
    def from_dict(cls, data: Json) -> Aimv2TextConfig:
        """Read the text part of a config.json, of Apple or transformers.

        Raises:
            ConfigError: a value has the wrong type, or `is_causal` is not true.
        """
        data = dict(_one_bias_switch(data))
        if "max_context_length" in data:
            data.setdefault("max_position_embeddings", data.pop("max_context_length"))
        if data.get("is_causal", True) is not True:
            raise ConfigError(f"config: is_causal is {data['is_causal']!r}; AIMv2's text encoder is causal")
        eos = data.get("eos_token_id")
        if isinstance(eos, (list, tuple)) and len(eos) == 1:
            data["eos_token_id"] = eos[0]
        return _build(cls, data)

    def to_dict(self) -> dict[str, Any]:
        """The keys of transformers, and the unknown keys of the file."""
        return {**_plain(self), "model_type": "aimv2_text_model"}


@dataclass(frozen=True)
class Aimv2Config:
    """The image-text pair (LiT)."""

    is_pair: ClassVar[bool] = True
    vision_config: Aimv2VisionConfig = field(default_factory=Aimv2VisionConfig)
    text_config: Aimv2TextConfig = field(default_factory=Aimv2TextConfig)
    projection_dim: int = 768  # P, the width both towers are projected to (transformers' class says 512)
    logit_scale_init_value: float = math.log(1 / 0.07)
    max_logit_scale: float = 100.0  # the largest factor on the cosine, after exp
    extra: Json = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _at_least_one(self, "projection_dim")
        _numbers(self, "logit_scale_init_value")
        scale = self.max_logit_scale
        if not _is_number(scale) or not 1 <= scale < math.inf:
            raise ConfigError(f"config: max_logit_scale must be a finite number of at least 1, not {scale!r}")

    @property
    def vision(self) -> Aimv2VisionConfig:
        """The configuration of the vision encoder."""
        return self.vision_config

    @classmethod
    def from_dict(cls, data: Json) -> Aimv2Config:
        """Read the config.json of a pair, of Apple or transformers.

        Raises:
            ConfigError: a part is missing or wrong.
        """
        data = dict(data)
        for name in ("vision_config", "text_config"):
            if not isinstance(data.get(name, {}), Mapping):
                raise ConfigError(f"config: {name} must be an object, not {type(data[name]).__name__}")
        vision = Aimv2VisionConfig.from_dict(data.pop("vision_config", {}))
        text = Aimv2TextConfig.from_dict(data.pop("text_config", {}))
        if "init_temperature" in data:
            data.setdefault("logit_scale_init_value", _log_inverse(data.pop("init_temperature")))
        return _build(cls, {**data, "vision_config": vision, "text_config": text})

    def to_dict(self) -> dict[str, Any]:
        """The keys of transformers, and the unknown keys of the file."""
        return {
            **_plain(self),
            "vision_config": self.vision_config.to_dict(),
            "text_config": self.text_config.to_dict(),
            "model_type": "aimv2",
            "architectures": ["Aimv2Model"],
        }


AnyConfig = Aimv2Config | Aimv2VisionConfig
C = TypeVar("C", Aimv2Config, Aimv2VisionConfig, Aimv2TextConfig)


def _build(cls: type[C], data: Json) -> C:
    known = {f.name for f in fields(cls)} - {"extra"}
    values = {key: value for key, value in data.items() if key in known and value is not None}
    extra = {key: value for key, value in data.items() if key not in known and key not in ("extra", *WRITTEN)}
    return cls(**values, extra=extra)


def _plain(config: AnyConfig | Aimv2TextConfig) -> dict[str, Any]:
    plain = asdict(config)
    return {**plain.pop("extra"), **plain}


def _square(data: Json, name: str) -> Json:
    """Read `[224, 224]` as 224, and refuse other pairs."""
    value = data.get(name)
    if not isinstance(value, (list, tuple)):
        return data
    if len(value) != 2 or value[0] != value[1]:
        raise ConfigError(f"config: {name} {value!r} is not square, and AIMv2's fixed sizes are")
    return {**data, name: value[0]}


def _one_bias_switch(data: Json) -> Json:
    """Read Apple's `use_bias` (output projection and MLP), which must equal `qkv_bias` (q, k, v)."""
    if "use_bias" not in data:
        return data
    if data["use_bias"] != data.get("qkv_bias", False):
        raise ConfigError(
            f"config: use_bias {data['use_bias']!r} with qkv_bias {data.get('qkv_bias', False)!r};"
            " only both or none are supported"
        )
    return {"mlp_bias": data["use_bias"], **data}


def _log_inverse(temperature: Any) -> float:
    if not _is_number(temperature) or not 0 < temperature < math.inf:
        raise ConfigError(f"config: init_temperature must be a finite number above 0, not {temperature!r}")
    return -math.log(temperature)
