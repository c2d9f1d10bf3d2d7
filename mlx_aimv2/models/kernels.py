"""The operations whose fastest form depends on the device, chosen in one place.

On a GPU (Metal, CUDA) the fused operations of MLX are used as they are, and the gated activation is compiled
into one kernel. On a Linux CPU `exp` is computed element by element by the C library: about 15 ns each, more than
the matrix products around it. There, given a C++ compiler, a compiled polynomial takes its place (relative error
under 3e-7). It has no gradient: a module in training mode (`model.train()`) uses MLX's own operations throughout.
"""

from __future__ import annotations

import functools
import math
import shutil
import sys
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

LOG2_E = math.log2(math.e)
LN2_HIGH, LN2_LOW = (
    0.693359375,
    -2.12194440e-4,
)  # their sum is ln 2; the first has few bits, so n * it is exact
INVERSE_FACTORIALS = [1 / math.factorial(k) for k in range(8)]  # degree 7: 1 ulp for |r| <= ln 2 / 2
CPU_SCORES = 1 << 21  # attention scores held at once on a CPU: 8 MB in float32

ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "silu": nn.silu,
    "gelu": nn.gelu,
    "gelu_pytorch_tanh": nn.gelu_approx,
    "quick_gelu": nn.gelu_fast_approx,
    "relu": nn.relu,
}


def fast_exp(x: mx.array) -> mx.array:
    """e to the power of float32 ``x``, clamped to [-87.3, 88]; fast only inside `mx.compile`."""
    x = mx.clip(x, -87.3, 88.0)
    n = mx.round(x * LOG2_E)
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    c = INVERSE_FACTORIALS
    r2 = r * r
    low = (c[0] + c[1] * r) + (c[2] + c[3] * r) * r2
    high = (c[4] + c[5] * r) + (c[6] + c[7] * r) * r2
    p = low + high * (r2 * r2)  # pairs instead of a chain: MLX fuses only so deep an expression
    power = mx.left_shift(n.astype(mx.int32) + 127, mx.array(23, dtype=mx.int32))
    return p * power.view(mx.float32)


def _swiglu(gate: mx.array, up: mx.array) -> mx.array:
    return nn.silu(gate) * up


def _swiglu_polynomial(gate: mx.array, up: mx.array) -> mx.array:
    return gate / (1.0 + fast_exp(-gate)) * up


def _shifted_exp_polynomial(scores: mx.array, peak: mx.array) -> mx.array:
    return fast_exp(scores - peak)


_swiglu_compiled = mx.compile(_swiglu, shapeless=True)
_swiglu_polynomial_compiled = mx.compile(_swiglu_polynomial)  # `view` has no shapeless form
_shifted_exp_compiled = mx.compile(_shifted_exp_polynomial)


@functools.lru_cache(maxsize=1)
def _cpu_compiles() -> bool:
    """Whether `mx.compile` can build CPU kernels here, and they are worth it: MLX calls g++ on Linux to do so."""
    if not sys.platform.startswith("linux") or not shutil.which("g++"):
        return False
    few = mx.ones((2, 2))
    try:
        mx.eval(_swiglu_polynomial_compiled(few, few), _shifted_exp_compiled(few, few[:, :1]))
    except RuntimeError:  # a compiler that does not work, or a temporary folder it may not write to
        mx.disable_compile()  # MLX's own layers would run into it too
        return False
    return True


def _polynomial(x: mx.array, training: bool) -> bool:
    return (
        not training
        and x.dtype == mx.float32
        and mx.default_device().type == mx.DeviceType.cpu
        and _cpu_compiles()
    )


def gated(activation: str, gate: mx.array, up: mx.array, training: bool = False) -> mx.array:
    """``activation(gate) * up``, elementwise, in the dtype of the inputs."""
    if activation != "silu":
        return ACTIVATIONS[activation](gate) * up
    if _polynomial(gate, training):
        return _swiglu_polynomial_compiled(gate, up)
    if training or mx.default_device().type == mx.DeviceType.cpu:
        return _swiglu(gate, up)
    return _swiglu_compiled(gate, up)


def attention(
    q: mx.array, k: mx.array, v: mx.array, mask: mx.array | None = None, training: bool = False
) -> mx.array:
    """Scaled dot-product attention.

    Args:
        q: queries (B, heads, N, d).
        k: keys (B, heads, N', d).
        v: values (B, heads, N', d).
        mask: True where a query may look, broadcastable to (B, heads, N, N').
        training: keep to operations that have a gradient.

    Returns:
        (B, heads, N, d), in the dtype of the inputs; the softmax is in float32.
    """
    scale = q.shape[-1] ** -0.5
    if mask is not None or not _polynomial(q, training):
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    batch, heads, length, _ = q.shape
    rows = max(1, CPU_SCORES // (batch * heads * k.shape[2]))
    q, k, v = (
        mx.contiguous(q * scale),
        mx.contiguous(k.swapaxes(-1, -2)),
        mx.contiguous(v),
    )  # once, not per block
    parts = [_attention_polynomial(q[:, :, at : at + rows], k, v) for at in range(0, length, rows)]
    return mx.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]


def _attention_polynomial(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    """Attention of scaled queries to keys (B, heads, d, N'), the softmax with the polynomial `exp`."""
    scores = q @ k  # (B, heads, N, N')
    weights = _shifted_exp_compiled(scores, scores.max(axis=-1, keepdims=True))
    return (weights @ v) / weights.sum(axis=-1, keepdims=True)


def attention_weights(q: mx.array, k: mx.array, mask: mx.array | None = None) -> mx.array:
    """The softmax that `attention` applies, (B, heads, N, N') in float32; only for those who ask to see it."""
    scores = (q.astype(mx.float32) * q.shape[-1] ** -0.5) @ k.astype(mx.float32).swapaxes(-1, -2)
    if mask is not None:
        scores = mx.where(mask, scores, -mx.inf)
    return mx.softmax(scores, axis=-1)
