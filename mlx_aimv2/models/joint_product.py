"""One matrix product for several projections of the same input, used on Metal.

Metal splits a small product into two kernels: queries, keys and values are six kernels one by one, and one together.
The weights are in memory once: each projection holds a view of the joined array. Training, loading or a change in
place puts another array there; from then on the projections are computed one by one.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..backend.device import on_metal

Linear = nn.Linear | nn.QuantizedLinear


class JointProduct:
    """Plain or quantized linear layers of one shape, computed as one layer."""

    def __init__(self, layers: Sequence[Linear]) -> None:
        """Join the arrays of ``layers``, and replace each by a view of the joined one; nothing is evaluated."""
        self.count = len(layers)
        self.linear: Linear = copy.copy(layers[0])
        self.views: list[dict[str, mx.array]] = [{} for _ in layers]
        for name in layers[0]:
            self.linear[name] = mx.concatenate([layer[name] for layer in layers])
            for layer, views, view in zip(
                layers, self.views, mx.split(self.linear[name], self.count), strict=True
            ):
                layer[name] = views[name] = view

    def __call__(self, x: mx.array) -> list[mx.array]:
        """The results of all layers for ``x`` (..., in), each (..., out): views of one array."""
        return list(mx.split(self.linear(x), self.count, axis=-1))

    def holds(self, layers: Sequence[Any]) -> bool:
        """Whether ``layers`` still have the arrays that were joined. Plain loops: each batch asks all layers."""
        kind, length = type(self.linear), len(self.linear)
        for layer in layers:
            if type(layer) is not kind or len(layer) != length:
                return False
        for number, name, view, address in self._parts:
            if layers[number].get(name) is not view or _address(view) != address:
                return False
        return True

    @cached_property
    def _parts(self) -> list[tuple[int, str, mx.array, int]]:
        """Of every view: the number of its layer, its name, and its address as long as it is one."""
        starts = {name: _address(array) for name, array in self.linear.items()}
        return [
            (number, name, view, starts[name] + number * view.nbytes)
            for number, views in enumerate(self.views)
            for name, view in views.items()
        ]


def _address(array: mx.array) -> int:
    """Where the numbers are; a change in place, such as `weight *= 2`, moves them."""
    return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]  # it has a buffer


class Projections(nn.Module):
    """A module with several projections of the same input."""

    INPUTS: tuple[str, ...]  # their names
    joint: JointProduct | None = None

    def project_inputs(self, x: mx.array) -> list[mx.array]:
        """The results of the projections for ``x`` (B, N, D), each (B, N, out)."""
        layers = [self[name] for name in self.INPUTS]
        if self.joint is not None:
            adapted = ["linear" in layer and hasattr(layer, "adapt") for layer in layers]
            plain = [
                layer["linear"] if inside else layer for layer, inside in zip(layers, adapted, strict=True)
            ]
            if self.joint.holds(plain):
                results = zip(layers, self.joint(x), adapted, strict=True)
                return [layer.adapt(x, y) if inside else y for layer, y, inside in results]
            self.joint = None  # frees the joined array
        return [layer(x) for layer in layers]

    def join(self) -> None:
        """Compute the projections as one product from now on, if they are of one kind."""
        layers = [self[name] for name in self.INPUTS]
        kinds = {tuple((name, x.shape, x.dtype) for name, x in layer.items()) for layer in layers}
        settings = {
            (type(layer), *(getattr(layer, name, None) for name in ("bits", "group_size", "mode")))
            for layer in layers
        }
        if len(kinds) == len(settings) == 1 and type(layers[0]) in (nn.Linear, nn.QuantizedLinear):
            self.joint = JointProduct(layers)


def join_projections(model: nn.Module) -> None:
    """On Metal, let every module of ``model`` compute its projections of one input as one product.

    Not on CUDA, where looking at the address of an array moves it to the CPU's memory; on a CPU it is no faster.
    """
    if on_metal():
        for module in model.modules():
            if isinstance(module, Projections):
                module.join()
