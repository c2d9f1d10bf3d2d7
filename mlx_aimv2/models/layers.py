"""The layers of both encoders: attention, gated MLP, pre-norm transformer layer.

Parameter names follow transformers (`models/aimv2/modeling_aimv2.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from ..backend.device import on_cpu
from ..backend.streams import even_slices, streams_for
from ..backend.threads import Compiled
from ..config import Aimv2TextConfig, Aimv2VisionConfig
from . import kernels
from .joint_product import Projections

TowerConfig = Aimv2VisionConfig | Aimv2TextConfig
QKV = tuple[mx.array, mx.array, mx.array]
EncoderResult = tuple[mx.array, tuple[mx.array, ...] | None, tuple[mx.array, ...] | None]


@dataclass(frozen=True)
class EncoderOutput:
    """The output of an encoder; the tuples are None unless requested.

    Attributes:
        last_hidden_state: (B, N, D) float32, after the final norm.
        pooler_output: (B, D) float32, or None for a model without a pooling head.
        hidden_states: the embeddings and every layer's output, each (B, N, D), before the final norm.
        attentions: every layer's attention weights, each (B, heads, N, N) float32.
    """

    last_hidden_state: mx.array
    pooler_output: mx.array | None = None
    hidden_states: tuple[mx.array, ...] | None = None
    attentions: tuple[mx.array, ...] | None = None


class Attention(Projections):
    """Multi-head self-attention with separate projections."""

    INPUTS = ("q_proj", "k_proj", "v_proj")

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        dim, bias = config.hidden_size, config.qkv_bias
        self.num_heads = config.num_attention_heads
        self.q_proj = nn.Linear(dim, dim, bias=bias)
        self.k_proj = nn.Linear(dim, dim, bias=bias)
        self.v_proj = nn.Linear(dim, dim, bias=bias)
        self.out_proj = nn.Linear(dim, dim, bias=bias)

    def project(self, x: mx.array) -> QKV:
        """Queries, keys and values of the tokens ``x`` (B, N, D), each (B, heads, N, d)."""
        q, k, v = (split_heads(y, self.num_heads) for y in self.project_inputs(x))
        return q, k, v

    def mix(self, q: mx.array, k: mx.array, v: mx.array, mask: mx.array | None = None) -> mx.array:
        """The values (B, heads, N', d), mixed for each query (B, heads, N, d): (B, N, D)."""
        return merge_heads(kernels.attention(q, k, v, mask, training=self.training))


class GatedMLP(Projections):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    INPUTS = ("gate_proj", "up_proj")

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        dim, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.activation = config.hidden_act
        self.gate_proj = nn.Linear(dim, inner, bias=bias)
        self.up_proj = nn.Linear(dim, inner, bias=bias)
        self.down_proj = nn.Linear(inner, dim, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        """Transform every token of ``x`` (B, N, D) by itself."""
        return self.down_proj(self.inner(x))

    def inner(self, x: mx.array) -> mx.array:
        """What `down_proj` takes for ``x`` (B, N, D): (B, N, inner)."""
        gate, up = self.project_inputs(x)
        return kernels.gated(self.activation, gate, up, self.training)


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer: attention, then the MLP, each added to its input."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.ffn = GatedMLP(config)
        self.rms_norm1 = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.rms_norm2 = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def __call__(
        self, x: mx.array, mask: mx.array | None = None, output_attentions: bool = False
    ) -> tuple[mx.array, mx.array | None]:
        """Run the layer on ``x`` (B, N, D); the second result is its attention weights if requested."""
        qkv = self.project(x)
        weights = kernels.attention_weights(*qkv[:2], mask) if output_attentions else None
        return self.finish(x, qkv, mask), weights

    def project(self, x: mx.array) -> QKV:
        """Queries, keys and values of the layer's input (B, N, D)."""
        return self.attention.project(self.rms_norm1(x))

    def finish(self, x: mx.array, qkv: QKV, mask: mx.array | None = None) -> mx.array:
        """The layer's output (B, N, D) for its input ``x``; the keys may include those of other tokens."""
        x = add_projected(x, self.attention.out_proj, self.attention.mix(*qkv, mask))
        return add_projected(x, self.ffn.down_proj, self.ffn.inner(self.rms_norm2(x)))


class Encoder(nn.Module):
    """A stack of layers."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.layers = [EncoderLayer(config) for _ in range(config.num_hidden_layers)]
        self.checkpoint_layers = False  # in training, compute a layer again in the backward pass: less memory

    def __call__(
        self,
        x: mx.array,
        mask: mx.array | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> EncoderResult:
        """Run all layers on ``x`` (B, N, D).

        Returns:
            The last layer's output (B, N, D); ``x`` and every layer's output; every layer's attention weights.
            The last two are None unless requested.
        """
        # MLX evaluates gradients in an order that takes one part of a batch after the other
        streams = () if self.training else streams_for(x.size)
        if not streams:
            return self._run(x, mask, output_hidden_states, output_attentions)
        if x.shape[0] < len(streams) and not (output_hidden_states or output_attentions):
            return self._run_by_token(x, mask, streams), None, None
        results = []
        for stream, rows in zip(
            streams, even_slices(x.shape[0], min(len(streams), x.shape[0])), strict=False
        ):
            with mx.stream(stream):
                own = mask[rows] if mask is not None and mask.ndim == 4 else mask
                results.append(self._run(x[rows], own, output_hidden_states, output_attentions))
        return tree_map(lambda *parts: None if parts[0] is None else mx.concatenate(list(parts)), *results)

    def _run(
        self, x: mx.array, mask: mx.array | None, output_hidden_states: bool, output_attentions: bool
    ) -> EncoderResult:
        states, attentions = [x], []
        for layer in self.layers:
            run = checkpointed(layer) if self.checkpoint_layers and self.training else layer
            x, weights = run(x, mask, output_attentions)
            if output_hidden_states:
                states.append(x)
            if weights is not None:
                attentions.append(weights)
        return (
            x,
            tuple(states) if output_hidden_states else None,
            tuple(attentions) if output_attentions else None,
        )

    def _run_by_token(self, x: mx.array, mask: mx.array | None, streams: Sequence[mx.Stream]) -> mx.array:
        """Run all layers with the tokens divided over ``streams``, which exchange keys and values."""
        slices = list(even_slices(x.shape[1], len(streams)))
        parts = [x[:, part] for part in slices]
        for layer in self.layers:
            projected = []
            for stream, part in zip(streams, parts, strict=True):
                with mx.stream(stream):
                    projected.append(layer.project(part))
            _, *keys_values = zip(*projected, strict=True)
            for number, (stream, tokens) in enumerate(zip(streams, slices, strict=True)):
                with mx.stream(stream):
                    k, v = (mx.concatenate(list(arrays), axis=2) for arrays in keys_values)
                    rows = None if mask is None else mask[..., tokens, :]
                    parts[number] = layer.finish(parts[number], (projected[number][0], k, v), rows)
        return mx.concatenate(parts, axis=1)


class Dropout(nn.Module):
    """Dropout with an optional random key, so that a layer that is computed twice drops the same numbers."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.key: mx.array | None = None

    def __call__(self, x: mx.array) -> mx.array:
        """In training mode, ``x`` with some numbers zeroed and the others scaled up; else ``x``."""
        if not self.rate or not self.training:
            return x
        kept = mx.random.bernoulli(1 - self.rate, x.shape, key=self.key)
        return kept * x * (1 / (1 - self.rate))


def checkpointed(layer: nn.Module) -> Callable[..., Any]:
    """``layer``, computed again in the backward pass to save memory.

    Unlike with `nn.utils.checkpoint`, dropout drops the same numbers both times.
    """
    dropouts = [module for module in layer.modules() if isinstance(module, Dropout) and module.rate]
    keys = [mx.random.randint(0, 2**32 - 1, (2,), dtype=mx.uint32) for _ in dropouts]

    def compute(parameters: Any, *inputs: Any) -> Any:
        layer.update(parameters)
        for dropout, key in zip(dropouts, keys, strict=True):
            dropout.key = key
        outputs = layer(*inputs)
        for dropout in dropouts:
            dropout.key = None
        return outputs

    return functools.partial(mx.checkpoint(compute), layer.trainable_parameters())


class PositionTable(nn.Module):
    """A learned vector per position; not an `nn.Embedding`, which quantization would convert."""

    def __init__(self, length: int, dim: int) -> None:
        super().__init__()
        self.weight = mx.random.normal((length, dim), scale=dim**-0.5)


def add_projected(x: mx.array, projection: nn.Module, inner: mx.array) -> mx.array:
    """``x`` (B, N, D) plus the projection of ``inner`` (B, N, K); on a GPU in one kernel, if the weight is plain."""
    if on_cpu() or type(projection) is not nn.Linear or "bias" in projection:
        return x + projection(inner)
    rows = inner.reshape(-1, inner.shape[-1])  # (B * N, K): a batch of products would not be one
    return mx.addmm(x.reshape(-1, x.shape[-1]), rows, projection.weight.T).reshape(x.shape)


def _sum_float32(x: mx.array, positions: mx.array) -> mx.array:
    return (x.astype(mx.float32) + positions.astype(mx.float32)).astype(x.dtype)


_sum_float32_compiled = Compiled(_sum_float32, shapeless=True)


def add_positions(x: mx.array, positions: mx.array) -> mx.array:
    """``x`` (B, N, D) plus ``positions`` (N, D), summed in float32 and kept in the dtype of ``x``."""
    return (_sum_float32 if on_cpu() else _sum_float32_compiled)(x, positions)


def split_heads(x: mx.array, num_heads: int) -> mx.array:
    """(B, N, D) to (B, heads, N, d)."""
    batch, length, dim = x.shape
    return x.reshape(batch, length, num_heads, dim // num_heads).swapaxes(1, 2)


def merge_heads(x: mx.array) -> mx.array:
    """(B, heads, N, d) to (B, N, D)."""
    batch, heads, length, dim = x.shape
    return x.swapaxes(1, 2).reshape(batch, length, heads * dim)
