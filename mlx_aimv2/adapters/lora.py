"""Linear layers with a LoRA (Hu et al. 2021) or DoRA adapter (Liu et al. 2024), and merging it into the weight.

The layer inside is frozen. The adapter's parameters are float32 and are computed with in the dtype of the
activations, so that a model in 16 bits stays in 16 bits. Shapes are PEFT's: A is (r, in), B is (out, r).
"""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..models.layers import Dropout

AnyLinear = nn.Linear | nn.QuantizedLinear


class LoRALinear(nn.Module):
    """y = W x + b + scale · B A x. A is random and B zero at first, so that a fresh adapter changes nothing."""

    def __init__(
        self,
        linear: AnyLinear,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        rslora: bool = False,
    ) -> None:
        """Put an adapter around ``linear``, and freeze it.

        Args:
            linear: the layer, plain or quantized.
            rank: r, the width between A and B.
            alpha: the adapter's output is multiplied by ``alpha / rank``.
            dropout: probability with which a number of the adapter's input is dropped in training mode.
            rslora: multiply by ``alpha / sqrt(rank)`` instead (Kalajdzievski 2023).
        """
        super().__init__()
        linear.freeze()
        self.linear: AnyLinear = linear
        self.dropout = Dropout(dropout)
        self.rank, self.alpha, self.rslora, self.drop_rate = rank, alpha, rslora, dropout
        self._start()

    def _start(self) -> None:
        """Make the fresh parameters."""
        out_width, in_width = linear_shape(self.linear)
        bound = in_width**-0.5  # Kaiming's uniform distribution with a = sqrt(5), as PEFT draws it
        self.lora_a = mx.random.uniform(-bound, bound, (self.rank, in_width))
        self.lora_b = mx.zeros((out_width, self.rank))

    @property
    def scale(self) -> float:
        """The factor of the adapter's output."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def __call__(self, x: mx.array) -> mx.array:
        """Transform ``x`` (..., in) to (..., out), in the dtype of the layer inside."""
        return self.adapt(x, self.linear(x))

    def adapt(self, x: mx.array, y: mx.array) -> mx.array:
        """The output (..., out) for ``x`` (..., in), of which the layer inside makes ``y``."""
        hidden, b = self._adapted(self.dropout(x), y.dtype)
        return mx.addmm(y, self.scale * hidden, b.T)  # with `alpha`, the gradient scales arrays as large as y

    def _adapted(self, x: mx.array, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
        """A x (..., r), and B, in ``dtype``."""
        return x.astype(dtype) @ self.lora_a.astype(dtype).T, self.lora_b.astype(dtype)

    def merged_weight(self) -> mx.array:
        """The weight (out, in) that replaces layer and adapter, float32."""
        return plain_weight(self.linear) + self.scale * (self.lora_b @ self.lora_a)

    def fuse(self, dequantize: bool = False) -> AnyLinear:
        """The layer without an adapter that computes the same.

        Args:
            dequantize: make a quantized layer plain; else its weight is quantized again, which rounds.
        """
        return with_weight(self.linear, self.merged_weight(), dequantize)


class DoRALinear(LoRALinear):
    """LoRA that learns the length of each row apart from its direction (Liu et al. 2024, "DoRA", sections 4.1, 4.3).

    y = m · (W + scale · B A) x / ‖W + scale · B A‖ + b, with the norm of each row. As in the paper and in PEFT, the
    norm is a constant for gradients, and dropout in training applies to the adapter's part of y, the change of length
    included.
    """

    def _start(self) -> None:
        super()._start()
        # W never changes, so its part of the norm is computed once; the underscore keeps it out of parameters
        self._row_squares = mx.square(plain_weight(self.linear)).sum(axis=1)
        self.magnitude = mx.sqrt(self._row_squares)

    def adapt(self, x: mx.array, y: mx.array) -> mx.array:
        """The output (..., out) for ``x`` (..., in), of which the layer inside makes ``y``."""
        dropped = self.dropout(x)
        hidden, b = self._adapted(dropped, y.dtype)
        # the growth of a row: 16 bits represent it better than the ratio, which is near 1
        longer = (self.magnitude / mx.stop_gradient(self.row_norms()) - 1).astype(y.dtype)
        if self.training and self.drop_rate > 0:
            direct, turn = self._without_bias(self.linear(dropped)), (self.scale * hidden) @ b.T
            return y + longer * (direct + turn) + turn
        turned = mx.addmm(self._without_bias(y), hidden, b.T, alpha=self.scale)
        turned = turned + longer * turned
        return turned + self.linear.bias.astype(y.dtype) if "bias" in self.linear else turned

    def _without_bias(self, y: mx.array) -> mx.array:
        return y - self.linear.bias.astype(y.dtype) if "bias" in self.linear else y

    def row_norms(self) -> mx.array:
        """‖W + scale · B A‖ of each row, (out,) float32.

        Computed as ‖W‖² + 2 s ⟨W, BA⟩ + s² ‖BA‖² from products with r rows, without W + BA or a dequantized W.
        """
        a, b, s = self.lora_a, self.lora_b, self.scale
        cross = (self._weight_times_rows(a).T * b).sum(axis=1)
        own = ((b @ (a @ a.T)) * b).sum(axis=1)
        return mx.sqrt(mx.maximum(self._row_squares + 2 * s * cross + s**2 * own, 1e-30))

    def _weight_times_rows(self, rows: mx.array) -> mx.array:
        """``rows`` (r, in) times W transposed, (r, out), float32."""
        linear = self.linear
        if not isinstance(linear, nn.QuantizedLinear):
            return (rows.astype(linear.weight.dtype) @ linear.weight.T).astype(mx.float32)
        product = mx.quantized_matmul(
            rows.astype(scales_dtype(linear)),
            linear.weight,
            linear.scales,
            linear.get("biases"),
            **packing(linear),
        )
        return product.astype(mx.float32)

    def merged_weight(self) -> mx.array:
        """The weight (out, in) that replaces layer and adapter, float32."""
        weight = super().merged_weight()
        norms = mx.maximum(mx.linalg.norm(weight, axis=1), 1e-15)
        return (self.magnitude / norms)[:, None] * weight


def linear_shape(linear: AnyLinear) -> tuple[int, int]:
    """The shape (out, in) of a layer, plain or quantized."""
    out_width, columns = linear.weight.shape
    if isinstance(linear, nn.QuantizedLinear):
        columns = columns * 32 // linear.bits
    return int(out_width), int(columns)


def packing(linear: nn.QuantizedLinear) -> dict[str, Any]:
    """The quantization of a layer, as arguments of MLX's functions."""
    return {"group_size": linear.group_size, "bits": linear.bits, "mode": linear.mode}


def scales_dtype(linear: nn.QuantizedLinear) -> mx.Dtype:
    """The dtype that a quantized layer computes in; float32 for modes with scales that are not floats."""
    return linear.scales.dtype if mx.issubdtype(linear.scales.dtype, mx.floating) else mx.float32


def plain_weight(linear: AnyLinear) -> mx.array:
    """The weight (out, in) of a layer, dequantized, in float32."""
    if not isinstance(linear, nn.QuantizedLinear):
        return linear.weight.astype(mx.float32)
    scales, biases = linear.scales, linear.get("biases")
    if biases is not None:  # float32 is more exact, and on a CPU much faster
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    return mx.dequantize(linear.weight, scales, biases, **packing(linear)).astype(mx.float32)


def with_weight(linear: AnyLinear, weight: mx.array, dequantize: bool = False) -> AnyLinear:
    """A layer like ``linear`` with another weight (out, in), quantized like it unless ``dequantize``."""
    out_width, in_width = linear_shape(linear)
    dtype, quantization = linear.weight.dtype, None
    if isinstance(linear, nn.QuantizedLinear):
        dtype, quantization = scales_dtype(linear), packing(linear)
    layer: AnyLinear = nn.Linear(in_width, out_width, bias="bias" in linear)
    layer.weight = weight.astype(dtype)
    if "bias" in linear:
        layer.bias = linear.bias
    if quantization is not None and not dequantize:
        layer = layer.to_quantized(**quantization)
    layer.train(linear.training)
    return layer


LAYERS: dict[str, type[LoRALinear]] = {"lora": LoRALinear, "dora": DoRALinear}
