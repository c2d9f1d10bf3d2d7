"""The kernels that MLX's Metal backend launches for a graph, with the bytes that they move and their FLOPs.

The rules follow MLX's source, `mlx/backend/metal` and `mlx/compile.cpp` of 0.32. They track the strides of every
array, because these decide whether a reshape, a product or an attention copies first. Bytes count each operand of a
kernel once: what a kernel reads again from a cache is not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import metal_layout as layout
from metal_layout import Array

# Primitives of one element at a time, and Broadcast, which `mx.compile` puts into one kernel.
ELEMENTWISE = set(
    "Abs Add AsType Ceil Cos Divide Equal Erf ErfInv Exp Expm1 Floor Greater GreaterEqual Less LessEqual Log Log1p"
    " LogicalAnd LogicalNot LogicalOr Maximum Minimum Multiply Negative NotEqual Power Remainder Round Select Sigmoid"
    " Sign Sin Sqrt Square Subtract Tanh".split()
)
FUSABLE = ELEMENTWISE | {"Broadcast"}
RESHAPES = {"Reshape", "Flatten", "Unflatten", "ExpandDims", "Squeeze"}
OPAQUE = {"Arange", "Full", "Gather", "Reduce", "Softmax", "ArgReduce", "Scan"}  # one kernel, a new array
SAME = {"Depends", "Enter", "Exit", "StopGradient", "Copy"}
FUSION_DEPTH = 11
ATTENTION_WIDTHS = {64, 72, 80, 96, 128}  # of a head; MLX has no fused kernel for others
VECTOR_QUERIES = 8  # up to as many queries, attention is another kernel
VECTOR_ROWS = 12  # about as many rows, and a quantized product is another kernel


@dataclass(frozen=True)
class Kernel:
    """One launch: bytes of weights read, of activations read, of results written; FLOPs of products."""

    name: str
    weights: int = 0
    read: int = 0
    written: int = 0
    flops: int = 0

    @property
    def bytes(self):
        return self.weights + self.read + self.written


@dataclass(frozen=True)
class Gpu:
    """What the choice of kernels depends on.

    Attributes:
        split_tiles: a product of at most as many tiles of 16 x 16 is split along its inner dimension.
        is_neural: whether the cores have the matrix units of M5, where another rule splits products.
    """

    split_tiles: int = 1024
    is_neural: bool = False

    def splits(self, rows, columns, inner):
        """Whether one matrix product is computed in parts that a second kernel adds up."""
        widest = max(rows, columns)
        if self.is_neural:
            return inner >= 3 * widest or (widest <= 1024 and inner > 2 * widest)
        tiles = math.ceil(rows / 16) * math.ceil(columns / 16)
        return tiles <= self.split_tiles and inner >= max(128, widest)


def kernels_of(graph, gpu=None):
    """The kernels that a graph launches, in order."""
    return _Counter(graph, gpu or Gpu()).count()


class _Counter:
    def __init__(self, graph, gpu):
        self.graph, self.gpu = graph, gpu
        self.arrays = {}
        self.kernels = []
        made = {name for node in graph.nodes for name in node.outputs}
        for name in graph.arrays.keys() - made:
            self.arrays[name] = self.new(name, name in graph.constants)

    def new(self, name, is_weight=False):
        shape, dtype = self.graph.arrays[name]
        return Array(tuple(shape), dtype.size, layout.row_strides(shape), is_weight)

    def count(self):
        groups = fused_groups(self.graph)
        inside = {index for members in groups.values() for index in members}
        for index, node in enumerate(self.graph.nodes):
            if index in groups:
                self.fused(index, groups[index])
            elif index not in inside:
                self.visit(node)
        return self.kernels

    def launch(self, name, inputs, outputs, flops=0):
        weights = sum(array.nbytes for array in inputs if array.is_weight)
        read = sum(array.nbytes for array in inputs if not array.is_weight)
        self.kernels.append(Kernel(name, weights, read, sum(array.nbytes for array in outputs), flops))

    def copied(self, array):
        """A contiguous copy, which is a kernel."""
        copy = Array(array.shape, array.itemsize, layout.row_strides(array.shape), False)
        self.launch("copy", [array], [copy])
        return copy

    def visit(self, node):
        """Lay out the results of a primitive, and launch what it needs."""
        inputs = [self.arrays[name] for name in node.inputs]
        if node.name in SAME:
            results = inputs[: len(node.outputs)]
        elif node.name in RESHAPES:
            results = [self.reshaped(inputs[0], self.graph.arrays[node.outputs[0]][0])]
        elif node.name in layout.VIEWS:
            results = layout.VIEWS[node.name](inputs[0], node.arguments)
        elif node.name == "Contiguous":
            results = [inputs[0] if inputs[0].is_row_contiguous else self.copied(inputs[0])]
        elif node.name in PRODUCTS:
            results = [PRODUCTS[node.name](self, inputs, self.new(node.outputs[0]))]
        elif node.name == "Concatenate":
            results = [self.new(node.outputs[0])]
            for part in inputs:
                self.launch("copy", [part], [part])
        elif node.name in ELEMENTWISE or node.name in OPAQUE:
            results = [self.new(name) for name in node.outputs]
            if node.name in ELEMENTWISE:
                results = [layout.like_inputs(results[0], inputs)]
            self.launch(node.name, inputs, results)
        else:
            raise ValueError(f"how Metal computes {node.name} is not known here: add it to metal_kernels.py")
        self.arrays.update(zip(node.outputs, results, strict=True))

    def reshaped(self, array, shape):
        strides = layout.reshaped_strides(array, shape)
        if strides is None:
            array, strides = self.copied(array), layout.row_strides(shape)
        return Array(tuple(shape), array.itemsize, strides, array.is_weight)

    def fused(self, root, members):
        nodes = [self.graph.nodes[index] for index in members]
        made = {name for node in nodes for name in node.outputs}
        names = list(dict.fromkeys(name for node in nodes for name in node.inputs if name not in made))
        inputs = [self.arrays[name] for name in names]
        needed = {name for node in self.graph.nodes if node not in nodes for name in node.inputs}
        results = {name: layout.like_inputs(self.new(name), inputs)
                   for name in made if name in needed or name in self.graph.outputs}  # fmt: skip
        self.arrays |= results
        self.launch("compiled " + "+".join(node.name for node in nodes), inputs, list(results.values()))

    def matmul(self, inputs, out):
        a, b = (x if 1 in x.strides[-2:] else self.copied(x) for x in inputs[:2])
        rows, columns, inner = a.shape[-2], b.shape[-1], a.shape[-1]
        products = math.prod(out.shape[:-2])
        flops = 2 * products * rows * columns * inner
        if products > 1 or min(rows, columns) == 1 or not self.gpu.splits(rows, columns, inner):
            self.launch("product", [a, b, *inputs[2:]], [out], flops)
        else:  # in two parts at least
            parts = Array((2, *out.shape), 4, layout.row_strides((2, *out.shape)), False)
            self.launch("product, split", [a, b], [parts], flops)
            self.launch("sum of the split product", [parts, *inputs[2:]], [out])
        return out

    def quantized_matmul(self, inputs, out):
        x, weight, *rest = inputs
        if x.strides[-1] != 1 or (x.ndim > 1 and x.strides[-2] != x.shape[-1]):
            x = self.copied(x)
        inner, columns = x.shape[-1], out.shape[-1]
        rows = math.prod(x.shape[:-1])
        flops = 2 * rows * columns * inner
        group = max(32, inner // rest[0].shape[-1])
        parts = min(max(1, 512 // (math.ceil(columns / 32) * math.ceil(rows / 32))), inner // group)
        while parts > 1 and inner % (parts * group):
            parts -= 1
        if rows < VECTOR_ROWS or parts == 1:
            self.launch("quantized product", [x, weight, *rest], [out], flops)
        else:
            partial = Array((parts, *out.shape), out.itemsize, layout.row_strides((parts, *out.shape)), False)
            self.launch("quantized product, split", [x, weight, *rest], [partial], flops)
            self.launch("sum of the split product", [partial], [out])
        return out

    def rms_norm(self, inputs, out):
        x = inputs[0]
        if x.strides[-1] != 1 or (x.ndim > 1 and x.strides[-2] not in (0, x.shape[-1])):
            x = self.copied(x)
        result = Array(out.shape, out.itemsize, x.strides, False)
        self.launch("RMSNorm", [x, *inputs[1:]], [result])
        return result

    def attention(self, inputs, out):
        q, k, v, *masks = inputs
        batch, heads, length, width = q.shape
        if width not in ATTENTION_WIDTHS:
            raise ValueError(f"MLX's Metal backend has no fused attention for heads of {width}")
        if length <= VECTOR_QUERIES:
            q = q if q.is_row_contiguous or layout.is_single(q) else self.copied(q)
            k, v = (x if layout.has_joint_heads(x) else self.copied(x) for x in (k, v))
            result = out
        else:  # it takes strides, and writes (B, N, heads, d), so that heads are merged without a copy
            q, k, v = (x if x.strides[-1] == 1 else self.copied(x) for x in (q, k, v))
            strides = (length * heads * width, width, heads * width, 1)
            result = Array(out.shape, out.itemsize, strides, False)
        flops = 4 * batch * heads * length * k.shape[2] * width
        self.launch("ScaledDotProductAttention", [q, k, v, *masks], [result], flops)
        return result


PRODUCTS = {
    "Matmul": _Counter.matmul,
    "AddMM": _Counter.matmul,
    "QuantizedMatmul": _Counter.quantized_matmul,
    "RMSNorm": _Counter.rms_norm,
    "ScaledDotProductAttention": _Counter.attention,
}


def fused_groups(graph):
    """The primitives that `mx.compile` puts into one kernel: the last one of each group, and all of them.

    A primitive joins the group of those that use its result, if nothing else inside the compiled function does.
    """
    makers = {name: index for index, node in enumerate(graph.nodes) for name in node.outputs}
    users = {}
    for index, node in enumerate(graph.nodes):
        for name in node.inputs:
            users.setdefault(name, []).append(index)
    groups, taken = {}, set()
    for region in _regions(graph, makers):
        for root in sorted(region, reverse=True):
            if root not in taken and graph.nodes[root].name in FUSABLE:
                members = _group(graph, root, region - taken, makers, users)
                if len(members) > 1:
                    groups[root] = sorted(members)
                    taken |= members
    return groups


def _regions(graph, makers):
    """For each compiled function, the indices of its primitives."""
    for exit_node in graph.nodes:
        if exit_node.name != "Exit":
            continue
        region, waiting = set(), list(exit_node.inputs)
        while waiting:
            index = makers.get(waiting.pop())
            if index is None or index in region or graph.nodes[index].region == exit_node.region:
                continue
            region.add(index)
            waiting += graph.nodes[index].inputs
        yield region


def _group(graph, root, region, makers, users):
    shape = graph.arrays[graph.nodes[root].outputs[0]][0]
    members = set()

    def visit(index, depth):
        node = graph.nodes[index]
        result = node.outputs[0]
        is_result = any(graph.nodes[user].name == "Exit" for user in users.get(result, []))
        inside = [user for user in users.get(result, []) if graph.nodes[user].name != "Exit"]
        if (index in members or index not in region or node.name not in FUSABLE or depth >= FUSION_DEPTH
                or (depth and is_result and graph.arrays[result][0] != shape)
                or (depth and not members.issuperset(inside))):  # fmt: skip
            return
        members.add(index)
        for name in node.inputs:
            if name in makers:
                visit(makers[name], depth + 1)

    visit(root, 0)
    return members
