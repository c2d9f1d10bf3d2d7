"""Attention and gated activation, in the fastest form for the device.

A GPU (Metal, CUDA) uses MLX's fused operations, and compiles the gated activation into one kernel. On a Linux CPU,
the C library computes `exp` element by element: about 15 ns each, more than the matrix products around it. If there
is a C++ compiler, a compiled polynomial replaces it there: `_power_bits` and `_times_fraction` together are 2^t, with
a relative error under 3e-7. MLX cannot differentiate its bit operations, so the functions that use it define their
own gradients.
"""

from __future__ import annotations

import functools
import math
import operator
import shutil
import sys
from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx

from ..backend.device import on_cpu
from ..backend.threads import Compiled

Pair = tuple[mx.array, mx.array]

LOG2_E = math.log2(math.e)
# added to a number below 2^22 and subtracted again, it rounds to an integer; `mx.round` is a call per element
ROUND = 1.5 * 2**23
# 2^f for |f| <= 1/2, from the lowest degree: least greatest relative error (7.5e-8)
FRACTION = (
    1.0000000716553,
    0.69314696706288,
    0.24022119720752,
    0.05550713275066,
    0.0096755415026,
    0.0013276471963,
)
# elements; for fewer, building the kernels (0.5 s each, once) takes longer than it saves
POLYNOMIAL_FROM = 1 << 16
CPU_SCORES = 1 << 21  # attention scores held at once on a CPU: 8 MB in float32

FORMULAS: dict[str, Callable[[mx.array], mx.array]] = {
    "silu": lambda x: x * mx.sigmoid(x),
    "gelu": lambda x: x * (1 + mx.erf(x / math.sqrt(2))) / 2,
    "gelu_pytorch_tanh": lambda x: 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x * mx.sigmoid(1.702 * x),
    "relu": lambda x: mx.maximum(x, 0),
}
# Not the functions of mlx.nn: those are compiled for the whole process and would stay in a thread's cache.
ACTIVATIONS = {name: Compiled(formula, shapeless=True) for name, formula in FORMULAS.items()}


def _power_bits(t: mx.array) -> mx.array:
    """2^round(t) as the int32 that holds the same bits, round(t) clamped to [-64, 64]; exact for |t| < 2^30."""
    n = (t + ROUND) - ROUND
    # `mx.clip` tests for NaN, which takes five times as long
    twice_clamped = mx.abs(n + 64.0) - mx.abs(n - 64.0)
    return ((twice_clamped + 2.0 * 127.0) * 2.0**22).astype(mx.int32)


def _times_fraction(t: mx.array, power: mx.array) -> Pair:
    """``power`` times 2^(t - round(t)), in two parts to add.

    Pairs of terms instead of a chain, because MLX fuses an expression of a depth of 11 at most.
    """
    f = t - ((t + ROUND) - ROUND)
    c, f2 = FRACTION, f * f
    return power * (c[0] + c[1] * f), (power * f2) * ((c[2] + c[3] * f) + (c[4] + c[5] * f) * f2)


def _one_plus_exp2(t: mx.array, power: mx.array) -> mx.array:
    low, high = _times_fraction(t, power)
    return (1.0 + low) + high


_swiglu_compiled = Compiled(lambda gate, up: FORMULAS["silu"](gate) * up, shapeless=True)
# One result each: a kernel of several is four times slower on a CPU. `view` ends a kernel, and has no shapeless form.
# Shapeless: MLX never forgets a shape, and images of native resolution have thousands.
_bits = Compiled(_power_bits, shapeless=True)
_exp2 = Compiled(lambda t, power: operator.add(*_times_fraction(t, power)), shapeless=True)
_gate_bits = Compiled(lambda gate: _power_bits(gate * -LOG2_E), shapeless=True)
_gate_product = Compiled(
    lambda gate, up, power: gate * up / _one_plus_exp2(gate * -LOG2_E, power), shapeless=True
)
_gate_sigmoid = Compiled(lambda gate, power: 1.0 / _one_plus_exp2(gate * -LOG2_E, power))
_gate_gradient = Compiled(lambda gate, sigmoid, up, d: d * up * sigmoid * (1.0 + gate * (1.0 - sigmoid)))
_up_gradient = Compiled(lambda gate, sigmoid, d: gate * sigmoid * d)
_scores_gradient = Compiled(lambda weights, d, mean: weights * (d - mean))


def _swiglu_forward(gate: mx.array, up: mx.array) -> mx.array:
    return _gate_product(gate, up, _gate_bits(gate).view(mx.float32))


def _swiglu_gradient(inputs: Pair, d: mx.array, _: mx.array) -> Pair:
    gate, up = inputs
    sigmoid = _gate_sigmoid(gate, _gate_bits(gate).view(mx.float32))
    return _gate_gradient(gate, sigmoid, up, d), _up_gradient(gate, sigmoid, d)


def _shifted_exp2(scores: mx.array) -> mx.array:
    """2 to the power of ``scores``, divided by the largest of each column."""
    shifted = scores - scores.max(axis=-2, keepdims=True)
    return _exp2(shifted, _bits(shifted).view(mx.float32))


def _softmax_forward(scores: mx.array) -> mx.array:
    weights = _shifted_exp2(scores * LOG2_E)
    return weights / weights.sum(axis=-2, keepdims=True)


def _softmax_gradient(scores: mx.array, d: mx.array, weights: mx.array) -> mx.array:
    return _scores_gradient(weights, d, (weights * d).sum(axis=-2, keepdims=True))


def _with_gradient(forward: Callable[..., Any], gradient: Callable[..., Any]) -> Callable[..., mx.array]:
    """``forward`` with its ``gradient``, a function of inputs, gradient of the output, and output."""
    function: Any = mx.custom_function(forward)
    function.vjp(gradient)
    return cast(Callable[..., mx.array], function)


_swiglu_polynomial = _with_gradient(_swiglu_forward, _swiglu_gradient)
_softmax_polynomial = _with_gradient(_softmax_forward, _softmax_gradient)


@functools.lru_cache(maxsize=1)
def cpu_compiles() -> bool:
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


def _polynomial(x: mx.array, elements: int) -> bool:
    return x.dtype == mx.float32 and elements >= POLYNOMIAL_FROM and on_cpu() and cpu_compiles()


def gated(activation: str, gate: mx.array, up: mx.array, training: bool = False) -> mx.array:
    """``activation(gate) * up``, elementwise, in the dtype of the inputs."""
    if activation == "silu" and _polynomial(gate, gate.size):
        return _swiglu_polynomial(gate, up)
    if on_cpu() and (gate.size < POLYNOMIAL_FROM or not cpu_compiles()):
        return FORMULAS[activation](gate) * up
    if activation == "silu" and not training:
        return _swiglu_compiled(gate, up)
    return ACTIVATIONS[activation](gate) * up


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
    if mask is not None or not _polynomial(q, q.size // q.shape[-1] * k.shape[2]):
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    if training:
        weights = _softmax_polynomial(k @ (q * scale).swapaxes(-1, -2))
        return weights.swapaxes(-1, -2) @ v
    batch, heads, length, _ = q.shape
    columns = max(1, CPU_SCORES // (batch * heads * k.shape[2]))
    q, k, v = map(mx.contiguous, (q * (scale * LOG2_E), k, v))  # once, not per block
    blocks = [_attention_polynomial(q[:, :, at : at + columns], k, v) for at in range(0, length, columns)]
    return mx.concatenate(blocks, axis=2) if len(blocks) > 1 else blocks[0]


def _attention_polynomial(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    """Attention of queries scaled to base 2.

    Keys are the rows of the scores, because MLX reduces columns three times as fast as rows on a CPU.
    """
    weights = _shifted_exp2(k @ q.swapaxes(-1, -2))  # (B, heads, N', N)
    return (weights.swapaxes(-1, -2) @ v) / weights.sum(axis=-2)[..., None]


def attention_weights(q: mx.array, k: mx.array, mask: mx.array | None = None) -> mx.array:
    """The softmax that `attention` applies, (B, heads, N, N') in float32, for `output_attentions`."""
    scores = (q.astype(mx.float32) * q.shape[-1] ** -0.5) @ k.astype(mx.float32).swapaxes(-1, -2)
    if mask is not None:
        scores = mx.where(mask, scores, -mx.inf)
    return mx.softmax(scores, axis=-1)
