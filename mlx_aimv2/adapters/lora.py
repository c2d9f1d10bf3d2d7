"""Linear layers with an adapter: LoRA (Hu et al. 2021) and DoRA (Liu et al. 2024), over plain or packed weights.

The layer inside stays as it is and frozen. What is trained is kept in float32 and computed in the dtype of the
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
    """y = W x + b + scale · B A x, with a random A and a B of zeros: at first the layer is what it was."""

    def __init__(
        self,
        linear: AnyLinear,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        rslora: bool = False,
    ) -> None:
        """Put an adapter around ``linear``, which is frozen.

        Args:
            linear: the layer, plain or quantized.
            rank: r, the width between A and B.
            alpha: the adapter's output is multiplied by ``alpha / rank``.
            dropout: probability with which a number of the adapter's input is dropped in training mode.
            rslora: multiply by ``alpha / sqrt(rank)`` instead (Kalajdzievski 2023).
        """
        super().__init__()
        out_width, in_width = linear_shape(linear)
        linear.freeze()
        self.linear: AnyLinear = linear
        self.dropout = Dropout(dropout)
        self.rank, self.alpha, self.rslora, self.drop_rate = rank, alpha, rslora, dropout
        bound = in_width**-0.5  # Kaiming's uniform distribution with a = sqrt(5), as PEFT draws it
        self.lora_a = mx.random.uniform(-bound, bound, (rank, in_width))
        self.lora_b = mx.zeros((out_width, rank))

    @property
    def scale(self) -> float:
        """What the adapter's output is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def __call__(self, x: mx.array) -> mx.array:
        """Transform ``x`` (..., in) to (..., out), in the dtype that the layer inside gives."""
        y = self.linear(x)
        hidden, b = self._adapted(self.dropout(x), y.dtype)
        return mx.addmm(y, hidden, b.T, alpha=self.scale)

    def _adapted(self, x: mx.array, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
        """A x (..., r), and B, in ``dtype``."""
        return x.astype(dtype) @ self.lora_a.astype(dtype).T, self.lora_b.astype(dtype)

    def merged_weight(self) -> mx.array:
        """The one weight (out, in) that does what layer and adapter do together, float32."""
        return plain_weight(self.linear) + self.scale * (self.lora_b @ self.lora_a)

    def fuse(self, dequantize: bool = False) -> AnyLinear:
        """The layer without an adapter that computes the same.

        Args:
            dequantize: give a plain layer where the one inside is quantized; else it is quantized again in the
                same way, which rounds.
        """
        return with_weight(self.linear, self.merged_weight(), dequantize)


class DoRALinear(LoRALinear):
    """LoRA that learns each row's length apart from its direction (Liu et al. 2024, "DoRA", sections 4.1, 4.3).

    y = m · (W + scale · B A) x / ‖W + scale · B A‖ + b, the norm taken of each row. As in the paper and in PEFT
    the norm counts as a constant when gradients are taken. In training mode with dropout the adapter's part of y,
    the change of length among it, sees the dropped input, as in PEFT.
    """

    def __init__(
        self,
        linear: AnyLinear,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        rslora: bool = False,
    ) -> None:
        super().__init__(linear, rank, alpha, dropout, rslora)
        # W never changes, so its own part of the norm is computed once; the underscore keeps it out of parameters
        self._row_squares = mx.square(plain_weight(self.linear)).sum(axis=1)
        self.magnitude = mx.sqrt(self._row_squares)

    def __call__(self, x: mx.array) -> mx.array:
        """Transform ``x`` (..., in) to (..., out), in the dtype that the layer inside gives."""
        y = self.linear(x)
        dropped = self.dropout(x)
        hidden, b = self._adapted(dropped, y.dtype)
        # how much longer a row became: 16 bits hold that better than the ratio, which is near 1
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

        Computed as ‖W‖² + 2 s ⟨W, BA⟩ + s² ‖BA‖² from products with r rows: neither W + BA nor an unpacked W is
        ever made.
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
        """The one weight (out, in) that does what layer and adapter do together, float32."""
        weight = super().merged_weight()
        norms = mx.maximum(mx.linalg.norm(weight, axis=1), 1e-15)
        return (self.magnitude / norms)[:, None] * weight


def linear_shape(linear: AnyLinear) -> tuple[int, int]:
    """Outputs and inputs of a layer, plain or quantized."""
    out_width, columns = linear.weight.shape
    if isinstance(linear, nn.QuantizedLinear):
        columns = columns * 32 // linear.bits
    return int(out_width), int(columns)


def packing(linear: nn.QuantizedLinear) -> dict[str, Any]:
    """How a layer is quantized, as MLX's functions call it."""
    return {"group_size": linear.group_size, "bits": linear.bits, "mode": linear.mode}


def scales_dtype(linear: nn.QuantizedLinear) -> mx.Dtype:
    """The dtype that a quantized layer computes in; float32 for modes whose scales are no floats."""
    return linear.scales.dtype if mx.issubdtype(linear.scales.dtype, mx.floating) else mx.float32


def plain_weight(linear: AnyLinear) -> mx.array:
    """A layer's weight (out, in) in float32, unpacked where it is quantized."""
    if not isinstance(linear, nn.QuantizedLinear):
        return linear.weight.astype(mx.float32)
    scales, biases = linear.scales, linear.get("biases")
    if biases is not None:  # in float32: more exact, and on a CPU much faster than in 16 bits
        scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
    return mx.dequantize(linear.weight, scales, biases, **packing(linear)).astype(mx.float32)


def with_weight(linear: AnyLinear, weight: mx.array, dequantize: bool = False) -> AnyLinear:
    """A layer like ``linear`` with another weight (out, in), stored as its own is unless ``dequantize``."""
    out_width, in_width = linear_shape(linear)
    bias = linear.bias if "bias" in linear else None
    if isinstance(linear, nn.QuantizedLinear) and not dequantize:
        packed = nn.QuantizedLinear(in_width, out_width, bias is not None, **packing(linear))
        packed.weight, packed.scales, *biases = mx.quantize(
            weight.astype(scales_dtype(linear)), **packing(linear)
        )
        packed.biases = biases[0] if biases else None
        fused: AnyLinear = packed
    else:
        fused = nn.Linear(in_width, out_width, bias is not None)
        packed_dtype = scales_dtype(linear) if isinstance(linear, nn.QuantizedLinear) else None
        fused.weight = weight.astype(packed_dtype or linear.weight.dtype)
    if bias is not None:
        fused.bias = bias
    fused.train(linear.training)
    return fused


LAYERS: dict[str, type[LoRALinear]] = {"lora": LoRALinear, "dora": DoRALinear}
