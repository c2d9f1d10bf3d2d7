"""GPTQ: quantize a weight so that its output changes least, rather than the weight itself.

Columns are rounded one after the other, those with the largest inputs first, and the columns after them compensate
for the error of each rounding in the output (Frantar et al. 2022, "GPTQ", algorithm 1). The range of every group of
weights is chosen among narrower ones by the squared error of its output. The format is MLX's affine one.
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from .scheme import Scheme

Array = np.ndarray
Packed = tuple[mx.array, mx.array, mx.array]  # weight, scales, biases
DAMPING = 0.01  # of the mean squared input, as in the paper
RANGES = tuple(1 - 0.05 * k for k in range(11))  # of a group's range: narrower ones cut off its outliers
BLOCK = 128  # columns that compensate for errors at once
TINY = 1e-8  # in place of a range or an energy of zero, as a divisor


@dataclass(frozen=True)
class Inputs:
    """Statistics of the inputs of projections.

    Attributes:
        importance: (D,), the mean square of each input, relative to all.
        order: (D,), the columns, those with the largest inputs first.
        upper: (D, D) float32, triangular U with U^T U the inverse of the inputs' gram matrix, in that order.
    """

    importance: Array
    order: Array
    upper: Array

    @classmethod
    def of(cls, gram: Array) -> Inputs:
        """From ``gram`` (D, D), the sum of x x^T over the inputs x; an input that is always zero is allowed."""
        energy = np.diagonal(gram).astype(np.float64)
        order = np.argsort(-energy, kind="stable")
        damping = max(DAMPING * energy.mean(), TINY)
        damped = gram[np.ix_(order, order)].astype(np.float64)
        damped.flat[:: len(damped) + 1] += damping
        # the Cholesky factor of the reversed matrix gives that of the inverse without inverting it
        lower = np.linalg.cholesky(damped[::-1, ::-1])
        upper = np.ascontiguousarray(_inverse(lower)[::-1, ::-1], dtype=np.float32)
        return cls((energy / max(energy.mean(), TINY)).astype(np.float32), order, upper)


def _inverse(lower: Array) -> Array:
    """The inverse of a lower triangular matrix, by halves: a sixth of the work that a general inverse takes."""
    size = len(lower)
    if size <= BLOCK:
        return np.linalg.inv(lower)
    half = size // 2
    inverse = np.zeros_like(lower)
    inverse[:half, :half], inverse[half:, half:] = (
        _inverse(lower[:half, :half]),
        _inverse(lower[half:, half:]),
    )
    inverse[half:, :half] = -inverse[half:, half:] @ (lower[half:, :half] @ inverse[:half, :half])
    return inverse


def quantize(weight: Array, inputs: Inputs, scheme: Scheme, dtype: mx.Dtype) -> Packed:
    """Quantize a projection, given the statistics of its inputs.

    Args:
        weight: (out, D) float32; D a multiple of the group size.
        inputs: the statistics.
        scheme: bits and group size, of affine mode.
        dtype: of scales and biases.

    Returns:
        Packed weight, scales and biases, as `mx.quantize` returns them for the same scheme.
    """
    bits, size, order = scheme.bits, scheme.group_size, inputs.order
    scales, biases = _ranges(weight, inputs.importance, scheme, dtype)
    # (D, out): columns to round, with the errors so far compensated
    left = np.ascontiguousarray(weight.T[order])
    codes = np.empty(weight.shape[::-1], dtype=np.uint8)
    for start in range(0, len(order), BLOCK):
        columns = order[start : start + BLOCK]
        upper = inputs.upper[
            start : start + BLOCK, start:
        ]  # (columns of the block, columns from the block on)
        block = left[start : start + BLOCK]  # (columns, out)
        errors = np.empty((len(columns), len(weight)), np.float32)
        for at, column in enumerate(columns):
            scale, bias = scales[column // size], biases[column // size]
            codes[column] = _codes(block[at], scale, bias, bits)
            errors[at] = (block[at] - (scale * codes[column] + bias)) / upper[at, at]
            block[at + 1 :] -= upper[at, at + 1 : len(columns), None] * errors[at]
        left[start + BLOCK :] -= upper[:, BLOCK:].T @ errors
    packed = pack(np.ascontiguousarray(codes.T), bits)
    return packed, mx.array(scales.T).astype(dtype), mx.array(biases.T).astype(dtype)


def _ranges(weight: Array, importance: Array, scheme: Scheme, dtype: mx.Dtype) -> tuple[Array, Array]:
    """Scale and bias of every group of ``weight`` (out, D), the best of several ranges, rounded to ``dtype``.

    Returns:
        Two arrays (D / group size, out).
    """
    groups = weight.reshape(len(weight), -1, scheme.group_size)  # (out, groups, G)
    importance = importance.reshape(-1, scheme.group_size, 1)  # (groups, G, 1)
    low, high = groups.min(axis=-1), groups.max(axis=-1)  # (out, groups)
    best = np.full(low.shape, np.inf, dtype=np.float32)
    scales, biases = np.ones_like(low), np.zeros_like(low)
    for part in RANGES:
        step = np.maximum(_stored((high - low) * part / (2**scheme.bits - 1), dtype), TINY)
        offset = _stored(low * part, dtype)
        rounded = _codes(groups, step[..., None], offset[..., None], scheme.bits)
        rounded *= step[..., None]
        rounded += offset[..., None]
        rounded -= groups
        error = (np.square(rounded)[:, :, None] @ importance)[..., 0, 0]  # (out, groups)
        better = error < best
        for chosen, new in ((best, error), (scales, step), (biases, offset)):
            np.copyto(chosen, new, where=better)
    return np.ascontiguousarray(scales.T), np.ascontiguousarray(biases.T)


def _codes(x: Array, scale: Array, bias: Array, bits: int) -> Array:
    return np.clip(np.rint((x - bias) / scale), 0, 2**bits - 1)


def _stored(x: Array, dtype: mx.Dtype) -> Array:
    return np.array(mx.array(x).astype(dtype, stream=mx.cpu).astype(mx.float32, stream=mx.cpu))


def pack(codes: Array, bits: int) -> mx.array:
    """Codes (out, D) of ``bits`` each as MLX packs them: one little-endian stream of bits a row, in uint32."""
    spread = np.unpackbits(codes[..., None], axis=-1, count=bits, bitorder="little")  # (out, D, bits)
    stream = np.packbits(spread.reshape(len(codes), -1), axis=-1, bitorder="little")
    return mx.array(stream.view("<u4"))
