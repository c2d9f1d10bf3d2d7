"""How arrays lie in memory: shapes, strides, and the operations that make views, as MLX does them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Array:
    """An array in memory; strides count elements, and a broadcast dimension has stride 0."""

    shape: tuple[int, ...]
    itemsize: int
    strides: tuple[int, ...]
    is_weight: bool = False  # known before the function runs

    @property
    def ndim(self):
        return len(self.shape)

    @property
    def nbytes(self):
        """Bytes of the different elements."""
        sizes = zip(self.shape, self.strides, strict=True)
        return self.itemsize * math.prod(size for size, stride in sizes if stride)

    @property
    def is_row_contiguous(self):
        wanted = row_strides(self.shape)
        return all(size == 1 or a == b for size, a, b in zip(self.shape, self.strides, wanted, strict=True))


def row_strides(shape):
    """The strides of a new array."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def reshaped_strides(array, shape):
    """The strides of a reshaped view, or None if the array must be copied."""
    if array.is_row_contiguous:
        return row_strides(shape)
    sizes, strides = _merged(array)
    result, at = [], 0
    for size in shape:
        if at < len(sizes) and sizes[at] % size == 0:
            sizes[at] //= size
            result.append(sizes[at] * strides[at])
            at += sizes[at] == 1
        elif size == 1:
            result.append(result[-1])
        else:
            return None
    return tuple(result)


def _merged(array):
    """Sizes and strides, with dimensions that follow each other in memory made one."""
    sizes, strides = [], []
    for size, stride in zip(array.shape, array.strides, strict=True):
        if size == 1:
            continue
        if sizes and strides[-1] == size * stride:
            sizes[-1], strides[-1] = sizes[-1] * size, stride
        else:
            sizes.append(size)
            strides.append(stride)
    return sizes, strides


def like_inputs(result, inputs):
    """The result of an elementwise kernel: laid out as its inputs if they are alike and have no gaps."""
    layouts = {x.strides for x in inputs if x.shape == result.shape and 0 not in x.strides}
    if len(layouts) == 1:
        strides = layouts.pop()
        order = sorted(range(result.ndim), key=lambda axis: (-strides[axis], axis))
        if tuple(strides[axis] for axis in order) == row_strides([result.shape[axis] for axis in order]):
            return replace(result, strides=strides)
    return result


def is_single(q):
    """Whether few queries can be read in place: of one image or one head, with the other dimension inside."""
    if 1 not in q.shape[:2]:
        return False
    other = 1 if q.shape[0] == 1 else 0
    return (
        q.strides[3] == 1 and q.strides[2] == q.shape[3] * q.shape[other] and q.strides[other] == q.shape[3]
    )


def has_joint_heads(x):
    """Whether batch and heads are one dimension in memory, which the attention of few queries wants."""
    return x.strides[-1] == 1 and (1 in x.shape[:2] or x.strides[0] == x.strides[1] * x.shape[1])


def _transpose(array, arguments):
    axes = arguments[0]
    shape, strides = (tuple(values[axis] for axis in axes) for values in (array.shape, array.strides))
    return [replace(array, shape=shape, strides=strides)]


def _broadcast(array, arguments):
    shape = tuple(arguments[0])
    new = len(shape) - array.ndim
    kept = [stride if size == array.shape[axis] else 0
            for axis, (size, stride) in enumerate(zip(shape[new:], array.strides, strict=True))]  # fmt: skip
    return [replace(array, shape=shape, strides=(*[0] * new, *kept))]


def _slice(array, arguments):
    starts, stops, steps = arguments[:3]
    shape = tuple(len(range(*bounds)) for bounds in zip(starts, stops, steps, strict=True))
    strides = tuple(stride * step for stride, step in zip(array.strides, steps, strict=True))
    return [replace(array, shape=shape, strides=strides)]


def _split(array, arguments):
    places, axis = arguments
    bounds = [0, *places, array.shape[axis]]
    shapes = [(*array.shape[:axis], stop - start, *array.shape[axis + 1 :])
              for start, stop in itertools.pairwise(bounds)]  # fmt: skip
    return [replace(array, shape=shape) for shape in shapes]


VIEWS = {"Transpose": _transpose, "Broadcast": _broadcast, "Slice": _slice, "Split": _split}
