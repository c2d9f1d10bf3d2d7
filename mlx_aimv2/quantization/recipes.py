"""Which tensors are quantized, and with how many bits: exceptions with their reasons, and mlx-lm's recipes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..config import AnyConfig
from ..errors import InputError
from .scheme import Quantization, Scheme

# Tensors that stay as they are: (part of the name, reason); the first match counts.
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


def kept_reason(name: str, shape: Sequence[int], scheme: Scheme) -> str | None:
    """Why a tensor is not quantized; None if it is."""
    for part, reason in KEPT:
        if part in name:
            return reason
    if len(shape) != 2:
        return "only matrices are quantized"
    if shape[-1] % scheme.group_size:
        return f"its width {shape[-1]} is not a multiple of {scheme.group_size}"
    return None


def mixed_bits(recipe: str, names: Iterable[str], group_size: int = 64) -> Quantization:
    """The quantization of a recipe of mlx-lm: few bits, and more for some value and down projections.

    Those are in the first and the last eighth of the layers, and in every third layer between.

    Raises:
        InputError: the recipe is unknown.
    """
    if recipe not in RECIPES:
        raise InputError(f"quant-predicate {recipe!r} is not one of {', '.join(RECIPES)}")
    low, high = (Scheme(group_size, bits) for bits in RECIPES[recipe])
    layers: dict[str, tuple[str, int]] = {}  # module path -> tower, layer
    for name in names:
        if name.endswith(("v_proj.weight", "down_proj.weight")) and (layer := _layer(name)):
            layers[name.removesuffix(".weight")] = layer
    counts: dict[str, int] = {}
    for tower, index in layers.values():
        counts[tower] = max(counts.get(tower, 0), index + 1)
    modules = {path: high for path, (tower, index) in layers.items() if _has_more_bits(index, counts[tower])}
    return Quantization(low, modules)


def _has_more_bits(layer: int, count: int) -> bool:
    eighth = count // 8
    return layer < eighth or layer >= 7 * count // 8 or (layer - eighth) % 3 == 2


def vision_prefix(config: AnyConfig) -> str:
    """The start of the names of the vision encoder's tensors."""
    return "vision_model." if config.is_pair else ""


def layer_number(name: str, tower: str) -> int:
    """The layer that a tensor belongs to, in the tower whose names begin with ``tower``; -1 for other tensors."""
    layer = _layer(name)
    return layer[1] if layer and layer[0] == tower else -1


def _layer(name: str) -> tuple[str, int] | None:
    """The start of the tower's names and the number of the layer; None outside of layers."""
    tower, in_layer, rest = name.partition(LAYERS)
    return (tower, int(rest.split(".")[0])) if in_layer else None
