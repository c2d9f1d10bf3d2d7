"""Classification heads: linear, attentive and nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..errors import InputError
from . import kernels
from .layers import merge_heads, split_heads
from .lit import normalize

SCALE = 0.01  # standard deviation of a fresh classification layer: its first guesses are nearly even
QUERY_SCALE = 0.02
EPS, MOMENTUM = 1e-6, 0.1  # of the batch norm, as AIM has it
HEADS, QUERIES = 8, 1
NEIGHBOURS, KNN_TEMPERATURE = 20, 0.07


class FeatureNorm(nn.Module):
    """Batch norm without parameters of its own (Ioffe and Szegedy 2015).

    Training mode normalizes features by the mean and variance of the batch, and updates running averages of both.
    Eval mode uses the averages, and so does training with a batch of one vector, which has no variance. The averages
    are saved with the module and never trained, also after `unfreeze`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.running_mean = mx.zeros((width,))
        self.running_var = mx.ones((width,))

    @property
    def _no_grad(self) -> set[str]:  # nn.BatchNorm's are trained once a module around it is unfrozen
        return {"running_mean", "running_var"}

    @_no_grad.setter
    def _no_grad(self, names: set[str]) -> None:
        """Ignore the names that nn.Module sets."""

    def __call__(self, x: mx.array) -> mx.array:
        """Normalize features (B, D) or tokens (B, N, D), in float32."""
        x = x.astype(mx.float32)
        mean, variance = self.running_mean, self.running_var
        count = x.size // x.shape[-1]
        if self.training and count > 1:
            axes = tuple(range(x.ndim - 1))
            mean, variance = x.mean(axis=axes), x.var(axis=axes)
            self._average(mx.stop_gradient(mean), mx.stop_gradient(variance) * (count / (count - 1)))
        return (x - mean) * mx.rsqrt(variance + EPS)

    def _average(self, mean: mx.array, variance: mx.array) -> None:
        self.running_mean = (1 - MOMENTUM) * self.running_mean + MOMENTUM * mean
        self.running_var = (1 - MOMENTUM) * self.running_var + MOMENTUM * variance


class LinearHead(nn.Module):
    """A linear layer over a pooled vector, with an optional batch norm before it.

    The batch norm has no parameters of its own (AIM's linear probe: El-Nouby et al. 2024, "Scalable Pre-training
    of Large Autoregressive Image Models", section 4). Fresh weights are normal(0, 0.01), biases zero.
    """

    def __init__(self, width: int, classes: int, batch_norm: bool = False) -> None:
        super().__init__()
        if batch_norm:
            self.norm = FeatureNorm(width)
        self.linear = _fresh_linear(width, classes)

    def __call__(self, features: mx.array) -> mx.array:
        """Logits (B, C) of pooled vectors (B, D)."""
        return self.linear(self.norm(features) if "norm" in self else features)


class AttentiveHead(nn.Module):
    """Learned queries that attend over all tokens, and a linear layer over the result.

    AIM's attentive probe (El-Nouby et al. 2024, section 4): batch norm without parameters over the tokens, key and
    value projections without bias, no projection of the queries, the mean over the queries. Fresh queries are
    normal(0, 0.02), projections uniform within 1 / sqrt(width), the last layer normal(0, 0.01) with bias zero.
    """

    def __init__(self, width: int, classes: int, heads: int = HEADS, queries: int = QUERIES) -> None:
        """Make a head; raises InputError if ``heads`` does not divide ``width``, or without a query."""
        super().__init__()
        if heads < 1 or width % heads:
            raise InputError(f"an attentive head of {heads} heads does not divide the width {width}")
        if queries < 1:
            raise InputError(f"an attentive head needs at least one query, not {queries}")
        self.num_heads = heads
        self.norm = FeatureNorm(width)
        self.cls_token = mx.random.normal((1, queries, width), scale=QUERY_SCALE)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.linear = _fresh_linear(width, classes)

    def __call__(self, tokens: mx.array) -> mx.array:
        """Logits (B, C) of tokens (B, N, D)."""
        tokens = self.norm(tokens)
        queries = mx.broadcast_to(self.cls_token, (tokens.shape[0], *self.cls_token.shape[1:]))
        q, k, v = (
            split_heads(x, self.num_heads) for x in (queries, self.k_proj(tokens), self.v_proj(tokens))
        )
        pooled = merge_heads(kernels.attention(q, k, v, training=self.training))  # (B, queries, D)
        return self.linear(pooled.mean(axis=1))


class KnnHead(nn.Module):
    """The nearest stored images vote for their labels, weighted by similarity.

    As in DINO (Caron et al. 2021, appendix F): cosine similarity, weights exp(similarity / 0.07). Nothing is
    trained. The logits are logarithms of the share of votes.
    """

    def __init__(self, width: int, classes: int, neighbours: int = NEIGHBOURS, size: int = 1) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.bank = mx.zeros((size, width))
        self.votes = mx.zeros((size, classes))
        self.freeze()

    @classmethod
    def of(cls, features: np.ndarray, targets: np.ndarray, neighbours: int = NEIGHBOURS) -> KnnHead:
        """A head with stored features (N, D) and their targets (N, C)."""
        head = cls(features.shape[1], targets.shape[1], min(neighbours, len(features)), len(features))
        head.bank, head.votes = normalize(mx.array(features)), mx.array(targets.astype(np.float32))
        return head

    def __call__(self, features: mx.array) -> mx.array:
        """Logits (B, C) of pooled vectors (B, D)."""
        near = normalize(features) @ self.bank.T  # (B, N)
        count = min(self.neighbours, near.shape[1])
        chosen = mx.argpartition(-near, count - 1, axis=1)[:, :count]  # (B, K)
        weights = mx.softmax(mx.take_along_axis(near, chosen, axis=1) / KNN_TEMPERATURE, axis=1)
        return mx.log((weights[..., None] * self.votes[chosen]).sum(axis=1) + 1e-6)


def _fresh_linear(width: int, classes: int) -> nn.Linear:
    if classes < 1:
        raise InputError(f"a head needs at least one class, not {classes}")
    linear = nn.Linear(width, classes)
    linear.weight = mx.random.normal((classes, width), scale=SCALE)
    linear.bias = mx.zeros((classes,))
    return linear


def make_head(spec: Mapping[str, Any], width: int, classes: int) -> nn.Module:
    """The head that ``spec`` describes, freshly initialised.

    Args:
        spec: `{"kind": "linear", "batch_norm": false}` or `{"kind": "attentive", "heads": 8, "queries": 1}`; all
            but the kind may be left out.
        width: D, of the features.
        classes: C.

    Raises:
        InputError: an unknown kind, or a setting that this kind does not have.
    """
    kind, settings = spec.get("kind"), {name: spec[name] for name in spec if name != "kind"}
    if kind not in SETTINGS:
        raise InputError(f"head {kind!r} is not one of {', '.join(SETTINGS)}")
    for name, value in settings.items():
        if name not in SETTINGS[kind]:
            raise InputError(
                f"a head of kind {kind} has no setting {name!r}, only {', '.join(SETTINGS[kind])}"
            )
        if type(value) is not SETTINGS[kind][name]:
            raise InputError(f"{name} of the {kind} head is {value!r}, not {SETTINGS[kind][name].__name__}")
    return HEAD_KINDS[kind](width, classes, **settings)


SETTINGS: dict[Any, dict[str, type]] = {
    "linear": {"batch_norm": bool},
    "attentive": {"heads": int, "queries": int},
    "knn": {"neighbours": int, "size": int},
}
HEAD_KINDS: dict[Any, Callable[..., nn.Module]] = {
    "linear": LinearHead,
    "attentive": AttentiveHead,
    "knn": KnnHead,
}


def head_spec(head: nn.Module) -> dict[str, Any]:
    """What `make_head` makes such a head from.

    Raises:
        InputError: a head of another kind.
    """
    if isinstance(head, LinearHead):
        return {"kind": "linear", "batch_norm": "norm" in head}
    if isinstance(head, AttentiveHead):
        return {"kind": "attentive", "heads": head.num_heads, "queries": head.cls_token.shape[1]}
    if isinstance(head, KnnHead):
        return {"kind": "knn", "neighbours": head.neighbours, "size": head.bank.shape[0]}
    raise InputError(f"a head of type {type(head).__name__} has no description")
