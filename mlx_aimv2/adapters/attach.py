"""Putting fresh adapters into a model, and merging them into its weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..errors import InputError
from ..messages import counted
from ..models.lit import Aimv2Model
from .lora import LAYERS, AnyLinear, LoRALinear
from .targets import MAX_RANK, TARGETS, short_names

TOWERS = ("vision", "text")


@dataclass(frozen=True)
class AdapterConfig:
    """Which layers get an adapter, and of which kind; raises InputError for a value that is not valid.

    Attributes:
        type: "lora" or "dora".
        rank: r, the width of the two small matrices.
        alpha: the adapter's output is multiplied by ``alpha / rank``.
        dropout: probability with which a number of an adapter's input is dropped in training.
        target_modules: the layers to adapt: q, k, v, out, gate, up, down (or q_proj, … as in files).
        num_layers: adapt the last so many layers of an encoder; None for all.
        rslora: multiply by ``alpha / sqrt(rank)`` instead.
    """

    type: str = "lora"
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: tuple[str, ...] = tuple(TARGETS)
    num_layers: int | None = None
    rslora: bool = False

    def __post_init__(self) -> None:
        if self.type not in LAYERS:
            raise InputError(f"adapter type {self.type!r} is not one of {', '.join(LAYERS)}")
        if not is_whole(self.rank) or not 1 <= self.rank <= MAX_RANK:
            raise InputError(f"rank must be a whole number from 1 to {MAX_RANK}, not {self.rank!r}")
        if not is_number(self.alpha) or not 0 < self.alpha < math.inf:
            raise InputError(f"alpha must be a finite number above 0, not {self.alpha!r}")
        if not is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be a number from 0 to below 1, not {self.dropout!r}")
        if self.num_layers is not None and (not is_whole(self.num_layers) or self.num_layers < 1):
            raise InputError(
                f"num_layers must be a whole number of at least 1, or None for all, not {self.num_layers!r}"
            )
        object.__setattr__(self, "target_modules", short_names(self.target_modules))


def is_whole(value: object) -> bool:
    """Whether a value is an integer, which True is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is a number, which True is not."""
    return is_whole(value) or isinstance(value, float)


def attach(model: nn.Module, config: AdapterConfig, towers: Sequence[str] = ("vision",)) -> list[str]:
    """Freeze an encoder or a pair, and put fresh adapters into it, which are then all that is trained.

    Args:
        model: an `Aimv2VisionModel`, an `Aimv2Model` or a `Classifier`, whose head stays trainable.
        config: which layers, and how.
        towers: the encoders of an image-text pair to adapt, "vision" or "text".

    Returns:
        The paths of the adapted layers in the encoder or the pair, in order.

    Raises:
        InputError: the model lacks an encoder or has fewer layers, or it has adapters already.
    """
    encoder = encoder_of(model)
    if adapted(encoder):
        raise InputError("the model has adapters already: fuse them first")
    paths = _target_paths(encoder, towers, config)
    encoder.freeze()
    layers, make = linears(encoder), LAYERS[config.type]
    for path in paths:
        layer = make(layers[path], config.rank, config.alpha, config.dropout, config.rslora)
        layer.train(encoder.training)
        replace_module(encoder, path, layer)
    compute_derived(encoder)
    return paths


def compute_derived(model: nn.Module) -> None:
    """Compute the arrays that adapters derive from the base, so that not every training step computes them again."""
    mx.eval([layer.state for layer in adapted(model).values()])


def encoder_of(model: nn.Module) -> nn.Module:
    """The encoder of a classifier; any other model itself."""
    trunk = model.get("trunk")
    return trunk if isinstance(trunk, nn.Module) else model


def _target_paths(encoder: nn.Module, towers: Sequence[str], config: AdapterConfig) -> list[str]:
    is_pair, paths = isinstance(encoder, Aimv2Model), []
    known = TOWERS if is_pair else TOWERS[:1]
    for tower in towers:
        if tower not in known:
            raise InputError(f"this model has no tower {tower!r}, only {', '.join(known)}")
    for name in (name for name in known if name in towers):
        count = len((encoder[f"{name}_model"] if is_pair else encoder).encoder.layers)
        if (config.num_layers or 0) > count:
            raise InputError(
                f"num_layers is {config.num_layers}, and the encoder has {counted(count, 'layer')}"
            )
        for number in range(count - (config.num_layers or count), count):
            layer = f"{name}_model." * is_pair + f"encoder.layers.{number}"
            paths += [f"{layer}.{TARGETS[target]}" for target in config.target_modules]
    return paths


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put ``module`` at ``path``, such as `encoder.layers.0.attention.q_proj`."""
    *parents, last = path.split(".")
    place: Any = model
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place[name]
    setattr(place, last, module)


def linears(model: nn.Module) -> dict[str, AnyLinear]:
    """Every linear layer that has no adapter, by its path."""
    inside = {f"{path}.linear" for path in adapted(model)}
    layers: dict[str, AnyLinear] = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.QuantizedLinear)) and path not in inside
    }
    return {path: layers[path] for path in sorted(layers, key=_in_order)}


def adapted(model: nn.Module) -> dict[str, LoRALinear]:
    """Every layer with an adapter, by its path, in order."""
    layers = {path: module for path, module in model.named_modules() if isinstance(module, LoRALinear)}
    return {path: layers[path] for path in sorted(layers, key=_in_order)}


def _in_order(path: str) -> list[tuple[int, str]]:
    """A sort key that puts `layers.2` before `layers.10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in path.split(".")]


def fuse(model: nn.Module, dequantize: bool = False) -> list[str]:
    """Merge every adapter into the weight of its layer.

    Args:
        model: as given to `attach`.
        dequantize: make quantized layers plain; else their merged weights are quantized again, which rounds.

    Returns:
        The paths of the layers that had adapters.
    """
    layers = adapted(model)
    for path, layer in layers.items():
        replace_module(model, path, layer.fuse(dequantize))
    return list(layers)


def count_trainable(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(x.size for x in dict(tree_flatten(model.trainable_parameters())).values())
