"""Attention and gated activation, in the fastest form for the device.

A GPU (Metal, CUDA) uses MLX's fused operations, and compiles the gated activation into one kernel. On a Linux CPU,
the C library computes `exp` element by element: about 15 ns each, more than the matrix products around it. If there
is a C++ compiler, a compiled polynomial replaces it there (relative error under 3e-7). MLX cannot differentiate its
bit operations, so the functions that use it define their own gradients.
"""

from __future__ import annotations

import functools
import math
import shutil
import sys
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx

from ..backend.threads import Compiled

Pair = tuple[mx.array, mx.array]

LOG2_E = math.log2(math.e)
# their sum is ln 2; the first has few bits, so that n * LN2_HIGH is exact
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
INVERSE_FACTORIALS = [1 / math.factorial(k) for k in range(8)]  # degree 7: 1 ulp for |r| <= ln 2 / 2
CPU_SCORES = 1 << 21  # attention scores held at once on a CPU: 8 MB in float32

# The formulas of mlx.nn, whose own functions are compiled for the whole process and would stay in a thread's cache.
ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "silu": Compiled(lambda x: x * mx.sigmoid(x), shapeless=True),
    "gelu": Compiled(lambda x: x * (1 + mx.erf(x / math.sqrt(2))) / 2, shapeless=True),
    "gelu_pytorch_tanh": Compiled(
        lambda x: 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), shapeless=True
    ),
    "quick_gelu": Compiled(lambda x: x * mx.sigmoid(1.702 * x), shapeless=True),
    "relu": Compiled(lambda x: mx.maximum(x, 0), shapeless=True),
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
    return ACTIVATIONS["silu"](gate) * up


_swiglu_compiled = Compiled(_swiglu, shapeless=True)
# One result each: a kernel of several is four times slower on a CPU. `view` has no shapeless form.
_sigmoid = Compiled(lambda gate: 1.0 / (1.0 + fast_exp(-gate)))
_product = Compiled(lambda gate, sigmoid, up: gate * sigmoid * up)
_gate_gradient = Compiled(lambda gate, sigmoid, up, d: d * up * sigmoid * (1.0 + gate * (1.0 - sigmoid)))
_shifted_exp = Compiled(lambda scores, peak: fast_exp(scores - peak))
_scores_gradient = Compiled(lambda weights, d, mean: weights * (d - mean))


def _swiglu_forward(gate: mx.array, up: mx.array) -> Pair:
    """silu(gate) * up, and the sigmoid of the gate for the gradient; it has no gradient itself."""
    sigmoid = _sigmoid(gate)
    return _product(gate, sigmoid, up), sigmoid


def _swiglu_gradient(inputs: Pair, d: Pair, outputs: Pair) -> Pair:
    gate, up = inputs
    sigmoid = outputs[1]
    return _gate_gradient(gate, sigmoid, up, d[0]), _product(gate, sigmoid, d[0])


def _softmax_forward(scores: mx.array) -> mx.array:
    weights = _shifted_exp(scores, scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _softmax_gradient(scores: mx.array, d: mx.array, weights: mx.array) -> mx.array:
    return _scores_gradient(weights, d, (weights * d).sum(axis=-1, keepdims=True))


def _with_gradient(forward: Callable[..., Any], gradient: Callable[..., Any]) -> Callable[..., Any]:
    """``forward`` with its ``gradient``, a function of inputs, gradient of the outputs, and outputs."""
    function: Any = mx.custom_function(forward)
    function.vjp(gradient)
    return cast(Callable[..., Any], function)


_swiglu_polynomial = _with_gradient(_swiglu_forward, _swiglu_gradient)
_softmax_polynomial = _with_gradient(_softmax_forward, _softmax_gradient)


@functools.lru_cache(maxsize=1)
def _cpu_compiles() -> bool:
    """Whether this is Linux and `mx.compile` can build CPU kernels, for which MLX calls g++."""
    if not sys.platform.startswith("linux") or not shutil.which("g++"):
        return False
    few = mx.ones((2, 2))
    try:
        mx.eval(_swiglu_polynomial(few, few), _softmax_polynomial(few))
    except RuntimeError:  # the compiler does not work, or may not write to the temporary folder
        mx.disable_compile()  # MLX's own layers would fail too
        return False
    return True


def _polynomial(x: mx.array) -> bool:
    on_cpu = mx.default_device().type == mx.DeviceType.cpu
    return x.dtype == mx.float32 and on_cpu and _cpu_compiles()


def gated(activation: str, gate: mx.array, up: mx.array, training: bool = False) -> mx.array:
    """``activation(gate) * up``, elementwise, in the dtype of the inputs."""
    if activation != "silu":
        return ACTIVATIONS[activation](gate) * up
    if _polynomial(gate):
        product: mx.array = _swiglu_polynomial(gate, up)[0]
        return product
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
        training: whether a gradient follows, which needs all weights at once.

    Returns:
        (B, heads, N, d), in the dtype of the inputs; the softmax is in float32.
    """
    scale = q.shape[-1] ** -0.5
    if mask is not None or not _polynomial(q):
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    if training:
        weights: mx.array = _softmax_polynomial((q * scale) @ k.swapaxes(-1, -2))
        return weights @ v
    batch, heads, length, _ = q.shape
    rows = max(1, CPU_SCORES // (batch * heads * k.shape[2]))
    q, k, v = map(mx.contiguous, (q * scale, k.swapaxes(-1, -2), v))  # once, not per block
    parts = [_attention_polynomial(q[:, :, at : at + rows], k, v) for at in range(0, length, rows)]
    return mx.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]


def _attention_polynomial(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    """Attention of scaled queries to keys (B, heads, d, N'), the softmax with the polynomial `exp`."""
    scores = q @ k  # (B, heads, N, N')
    weights = _shifted_exp(scores, scores.max(axis=-1, keepdims=True))
    return (weights @ v) / weights.sum(axis=-1, keepdims=True)


def attention_weights(q: mx.array, k: mx.array, mask: mx.array | None = None) -> mx.array:
    """The softmax that `attention` applies, (B, heads, N, N') in float32, for `output_attentions`."""
    scores = (q.astype(mx.float32) * q.shape[-1] ** -0.5) @ k.astype(mx.float32).swapaxes(-1, -2)
    if mask is not None:
        scores = mx.where(mask, scores, -mx.inf)
    return mx.softmax(scores, axis=-1)
