"""The graph of a function as a GPU computes it, traced on any device.

`mx.export_function` lists the primitives of a function. On a CPU it lists MLX's fused functions and compiled
functions as their parts. Here each is replaced by a mark, a `Depends` primitive whose last input is a constant that
names it:

- `RMSNorm`, `ScaledDotProductAttention`, `Contiguous` stand for one call of MLX's function of that name;
- `Enter` and `Exit` stand around the primitives of a function that is compiled.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from unittest import mock

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

FIRST_MARK = 1 << 30  # the constants from here on are marks


@dataclass(frozen=True)
class Node:
    """A primitive: its name, arguments, and the names of the arrays that it reads and makes."""

    name: str
    arguments: list
    inputs: list[str]
    outputs: list[str]
    region: int | None = None  # of Enter and Exit: the number of the compiled function


@dataclass
class Graph:
    """Primitives in an order in which they can run, and shape and dtype of every array."""

    nodes: list[Node]
    arrays: dict[str, tuple[tuple[int, ...], mx.Dtype]]
    constants: set[str]  # weights, and other numbers that are known when the function is traced
    outputs: list[str]


class Marks:
    """The replacements of MLX's functions, and what they have marked."""

    def __init__(self):
        self.names: list[tuple[str, int | None]] = []
        self.regions = 0
        self.is_compiling = False

    def mark(self, name, inputs, dependencies=(), region=None):
        """``inputs``, behind a mark that reads them and ``dependencies``."""
        self.names.append((name, region))
        number = mx.array(FIRST_MARK + len(self.names) - 1, dtype=mx.int32)
        return mx.depends(list(inputs), [*dependencies, number])

    def rms_norm(self, x, weight, eps, **_):
        dtype = x.dtype if weight is None else mx.result_type(x, weight)
        weights = [] if weight is None else [weight.astype(dtype)]
        return self.mark("RMSNorm", [x.astype(dtype)], weights)[0]

    def attention(self, q, k, v, *, scale, mask=None, **_):
        masks = [mask] if isinstance(mask, mx.array) else []
        return self.mark("ScaledDotProductAttention", [q], [k, v, *masks])[0]

    def contiguous(self, x, *_, **__):
        return self.mark("Contiguous", [x])[0]

    def compile(self, function, *_, **__):
        def run(*arguments):
            if self.is_compiling:  # MLX compiles the inner function as part of the outer one
                return function(*arguments)
            region, self.regions = self.regions, self.regions + 1
            self.is_compiling = True
            try:
                return self._through("Exit", region, function(*self._through("Enter", region, arguments)))
            finally:
                self.is_compiling = False

        return run

    def _through(self, name, region, tree):
        flat = tree_flatten(tree)
        arrays = [x for _, x in flat if isinstance(x, mx.array)]
        marked = iter(self.mark(name, arrays, region=region))
        return tree_unflatten([(key, next(marked) if isinstance(x, mx.array) else x) for key, x in flat])


@contextlib.contextmanager
def as_gpu():
    """Make MLX look as on a GPU and mark its fused functions; modules that compile must be imported inside."""
    marks = Marks()
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in (
            (mx.fast, "rms_norm", marks.rms_norm),
            (mx.fast, "scaled_dot_product_attention", marks.attention),
            (mx, "contiguous", marks.contiguous),
            (mx, "compile", marks.compile),
            (mx, "default_device", lambda: mx.Device(mx.gpu)),
            (mx.metal, "is_available", lambda: True),
        ):
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield marks


def trace(function, *inputs, marks):
    """The graph of ``function``, from arrays to an array, called inside `as_gpu`."""
    records = []
    mx.export_function(records.append, function, *inputs)
    lists = {record["type"]: record for record in records if record["type"] != "primitive"}
    constants = dict(lists["constants"]["constants"])
    arrays = {name: (shape, dtype) for name, shape, dtype in lists["inputs"]["inputs"]}
    arrays |= {name: (tuple(value.shape), value.dtype) for name, value in constants.items()}
    nodes = []
    for record in records:
        if record["type"] != "primitive":
            continue
        arrays |= {name: (shape, dtype) for name, shape, dtype in record["outputs"]}
        names = [name for name, _, _ in record["inputs"]]
        outputs = [name for name, _, _ in record["outputs"]]
        kind, region = record["name"], None
        number = _mark_number(constants.get(names[-1])) if kind == "Depends" else None
        if number is not None:
            (kind, region), names = marks.names[number], names[:-1]
        nodes.append(Node(kind, record["arguments"], names, outputs, region))
    return Graph(nodes, arrays, set(constants), [name for name, _, _ in lists["outputs"]["outputs"]])


def _mark_number(value):
    """The place of a mark in `Marks.names`, or None for another array."""
    if value is None or value.ndim or value.dtype != mx.int32 or value.item() < FIRST_MARK:
        return None
    return value.item() - FIRST_MARK
