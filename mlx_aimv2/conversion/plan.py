"""What a conversion will do to each tensor, worked out from names, shapes and dtypes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx

from ..checkpoints.checkpoint import KEPT_FLOAT32
from ..checkpoints.shards import Entry
from ..config import Aimv2Config, AnyConfig
from ..errors import InputError
from ..quantization.scheme import Quantization, Scheme

# What quantization leaves alone, and why: (part of a name, reason); the first that fits.
KEPT = (
    ("logit_scale", "a single number"),
    ("norm", "norms are small and sensitive"),
    ("position_embedding", "position tables stay exact"),
    ("patch_embed", "the patch convolution sees raw pixels"),
    ("head.", "the pooling head makes the one vector of an image"),
    ("_projection", "the projections make the embeddings themselves"),
    (".bias", "a bias is small"),
)
LAYERS = "encoder.layers."
RECIPES = {
    "mixed_2_6": (2, 6),
    "mixed_3_4": (3, 4),
    "mixed_3_6": (3, 6),
    "mixed_4_6": (4, 6),
}  # low, high bits


@dataclass(frozen=True)
class Planned:
    """One canonical tensor: what is written for it, and why it is not quantized, if it is not."""

    name: str
    shape: tuple[int, ...]
    dtype: mx.Dtype
    scheme: Scheme | None = None
    reason: str | None = None

    @property
    def entries(self) -> list[Entry]:
        """The tensors that will be in the file: one, or weight, scales and biases."""
        if self.scheme is None:
            return [Entry(self.name, self.dtype, self.shape)]
        path = self.name.removesuffix(".weight")
        packed = mx.quantize(mx.zeros(self.shape, self.dtype), **self.scheme.arguments())  # lazy: only shapes
        parts = zip(("weight", "scales", "biases"), packed, strict=False)
        return [Entry(f"{path}.{kind}", x.dtype, tuple(x.shape)) for kind, x in parts]


def plan(
    tensors: Mapping[str, mx.array], dtype: mx.Dtype, quantization: Quantization | None = None
) -> list[Planned]:
    """What is written for each canonical tensor.

    Args:
        tensors: plain canonical tensors; only their names, shapes and dtypes are looked at.
        dtype: of every float that is not kept in float32.
        quantization: how to quantize what can be; None to quantize nothing.
    """
    return [_plan_one(name, x, dtype, quantization) for name, x in tensors.items()]


def _plan_one(name: str, x: mx.array, dtype: mx.Dtype, quantization: Quantization | None) -> Planned:
    shape = tuple(x.shape)
    if name.endswith(KEPT_FLOAT32):
        dtype = mx.float32
    if not mx.issubdtype(x.dtype, mx.floating):
        dtype = x.dtype
    if quantization is None:
        return Planned(name, shape, dtype)
    scheme = quantization.scheme(name.removesuffix(".weight"))
    reason = kept_reason(name, shape, scheme)
    return Planned(name, shape, dtype, None if reason else scheme, reason)


def kept_reason(name: str, shape: Sequence[int], scheme: Scheme) -> str | None:
    """Why a tensor stays as it is when a checkpoint is quantized; None where it does not."""
    for part, reason in KEPT:
        if part in name:
            return reason
    if len(shape) != 2:
        return "only matrices are quantized"
    if shape[-1] % scheme.group_size:
        return f"its width {shape[-1]} is not a multiple of {scheme.group_size}"
    return None


def mixed(recipe: str, tensors: Mapping[str, mx.array], group_size: int = 64) -> Quantization:
    """A recipe of mlx-lm: few bits, and more for value and down projections where they matter most.

    Those are in the first and the last eighth of the layers, and every third layer between.

    Raises:
        InputError: an unknown recipe.
    """
    if recipe not in RECIPES:
        raise InputError(f"quant-predicate {recipe!r} is not one of {', '.join(RECIPES)}")
    low, high = (Scheme(group_size, bits) for bits in RECIPES[recipe])
    paths = [
        name.removesuffix(".weight")
        for name in tensors
        if name.endswith(("v_proj.weight", "down_proj.weight"))
    ]
    places = {path: place for path in paths if (place := _layer(path)) is not None}
    counts: dict[str, int] = {}
    for tower, index in places.values():
        counts[tower] = max(counts.get(tower, 0), index + 1)
    modules = {path: high for path, (tower, index) in places.items() if _matters(index, counts[tower])}
    return Quantization(low, modules)


def vision_prefix(config: AnyConfig) -> str:
    """What the names of the vision encoder's tensors begin with."""
    return "vision_model." if isinstance(config, Aimv2Config) else ""


def layer_number(name: str, tower: str) -> int:
    """The layer of the tower with names that begin with ``tower`` that a tensor is in; -1 for every other."""
    place = _layer(name)
    return place[1] if place and place[0] == tower else -1


def by_layer(planned: Sequence[Planned], tower: str) -> list[Planned]:
    """The same, with the layers of one tower one after the other, behind everything else."""
    return sorted(planned, key=lambda one: layer_number(one.name, tower))


def _layer(path: str) -> tuple[str, int] | None:
    """The tower and the number of the layer a module is in."""
    tower, found, rest = path.partition(LAYERS)
    return (tower, int(rest.split(".")[0])) if found else None


def _matters(index: int, count: int) -> bool:
    eighth = count // 8
    return index < eighth or index >= 7 * count // 8 or (index - eighth) % 3 == 2
