"""Rules that rename, transpose and split the tensors of a layout into canonical ones, and their inverse.

A `Rule` maps a tensor of a layout to one canonical tensor (renamed, perhaps transposed), or to several (a fused
tensor, split by rows). `{i}` in a name stands for a layer's number, between a dot or `_` and a dot. Rules read no
data: MLX arrays are lazy, so a checkpoint is renamed, split and checked before the first byte of a tensor is loaded.
All canonical tensors are row-major; the parts of a fused tensor share its memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import mlx.core as mx

Tensors = dict[str, mx.array]
Transform = Callable[[mx.array], mx.array]


def same(x: mx.array) -> mx.array:
    """The tensor as it is."""
    return x


def channels_last(x: mx.array) -> mx.array:
    """A convolution kernel (D, C, p, p) as (D, p, p, C)."""
    return mx.contiguous(x.transpose(0, 2, 3, 1)) if x.ndim == 4 else x


def channels_first(x: mx.array) -> mx.array:
    """A convolution kernel (D, p, p, C) as (D, C, p, p)."""
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x


def transposed(x: mx.array) -> mx.array:
    """A weight (in, out) as (out, in), or back."""
    return mx.contiguous(x.T) if x.ndim == 2 else x


def out_first(x: mx.array) -> mx.array:
    """A convolution kernel (p, p, C, D) as (D, p, p, C)."""
    return mx.contiguous(x.transpose(3, 0, 1, 2)) if x.ndim == 4 else x


def out_last(x: mx.array) -> mx.array:
    """A convolution kernel (D, p, p, C) as (p, p, C, D)."""
    return x.transpose(1, 2, 3, 0) if x.ndim == 4 else x


def drop_batch(x: mx.array) -> mx.array:
    """A table (1, N, D) as (N, D)."""
    return x[0] if x.ndim == 3 and x.shape[0] == 1 else x


def add_batch(x: mx.array) -> mx.array:
    """A table (N, D) as (1, N, D)."""
    return x[None]


@dataclass(frozen=True)
class Rule:
    """One line of a layout's table.

    Attributes:
        source: the name in the layout.
        targets: the canonical names; several for a fused tensor, in the order of its rows.
        forward: from the layout's shape to the canonical one.
        inverse: the inverse of ``forward``.
    """

    source: str
    targets: tuple[str, ...]
    forward: Transform = same
    inverse: Transform = same


def rule(source: str, *targets: str, transform: tuple[Transform, Transform] = (same, same)) -> Rule:
    """A short way to write a `Rule`."""
    return Rule(source, targets, *transform)


KERNEL = (channels_last, channels_first)
FLAX_KERNEL = (out_first, out_last)
DENSE = (transposed, transposed)
TABLE = (drop_batch, add_batch)


def prefixed(rules: Iterable[Rule], source: str, target: str) -> list[Rule]:
    """The same rules below a prefix on either side."""
    return [
        Rule(source + r.source, tuple(target + name for name in r.targets), r.forward, r.inverse)
        for r in rules
    ]


def matcher(names: Iterable[str]) -> Callable[[str], tuple[str, str] | None]:
    """A function from a name to (its template, the layer's number in it), or None if no template fits."""
    known = set(names)

    def match(name: str) -> tuple[str, str] | None:
        if name in known:
            return name, ""
        number = re.search(r"[._](0|[1-9]\d{0,5})\.", name)
        if number:
            template = f"{name[: number.start(1)]}{{i}}{name[number.end(1) :]}"
            if template in known:
                return template, number[1]
        return None

    return match


def to_canonical(tensors: Mapping[str, mx.array], rules: Iterable[Rule]) -> tuple[Tensors, list[str]]:
    """Rename, split and transpose a layout's tensors.

    Args:
        tensors: the layout's tensors, lazy or not.
        rules: the layout's table.

    Returns:
        The canonical tensors, in the order of the input, and the names without a rule.
    """
    table = {r.source: r for r in rules}
    match = matcher(table)
    canonical: Tensors = {}
    unknown = []
    for name, tensor in tensors.items():
        template = match(name)
        if template is None:
            unknown.append(name)
            continue
        r, number = table[template[0]], template[1]
        parts = _split(r.forward(tensor), len(r.targets))
        for target, part in zip(r.targets, parts, strict=True):
            canonical[target.replace("{i}", number)] = part
    return canonical, unknown


def _split(tensor: mx.array, parts: int) -> list[mx.array]:
    if parts == 1:
        return [tensor]
    if tensor.ndim == 0 or tensor.shape[0] % parts:
        return [tensor] * parts  # the comparison with the model refuses the wrong shape
    return list(mx.split(tensor, parts, axis=0))


def from_canonical(tensors: Mapping[str, mx.array], rules: Iterable[Rule]) -> tuple[Tensors, list[str]]:
    """The inverse of `to_canonical`: fuse, rename and transpose back.

    Returns:
        The layout's tensors, and the names without a place in it (and those of an incomplete fused group).
    """
    table = {target: r for r in rules for target in r.targets}
    match = matcher(table)
    layout: Tensors = {}
    unknown = []
    for name in tensors:
        template = match(name)
        if template is None:
            unknown.append(name)
            continue
        r, number = table[template[0]], template[1]
        source = r.source.replace("{i}", number)
        if source in layout:
            continue
        group = [target.replace("{i}", number) for target in r.targets]
        if any(member not in tensors for member in group):
            unknown.append(name)
            continue
        parts = [tensors[member] for member in group]
        layout[source] = r.inverse(parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=0))
    return layout, unknown
