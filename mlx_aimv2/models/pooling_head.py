"""The attention pooling head: the tokens of an image to one vector."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..config import Aimv2VisionConfig
from . import kernels
from .layers import merge_heads, split_heads


class AttentionPoolingHead(nn.Module):
    """One learned query attends over all tokens (AIM, section 3; the head of the LiT checkpoints).

    The query is ``cls_token`` itself: it has no projection.
    """

    def __init__(self, config: Aimv2VisionConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.cls_token = mx.random.normal((1, 1, dim), scale=config.initializer_range)
        self.k_proj = nn.Linear(dim, dim, bias=config.qkv_bias)
        self.v_proj = nn.Linear(dim, dim, bias=config.qkv_bias)
        self.output_proj = nn.Linear(dim, dim, bias=True)

    def __call__(self, tokens: mx.array) -> mx.array:
        """Pool ``tokens`` (B, N, D) to (B, D)."""
        batch, _, dim = tokens.shape
        query = mx.broadcast_to(self.cls_token, (batch, 1, dim)).astype(tokens.dtype)
        q, k, v = (split_heads(x, self.num_heads) for x in (query, self.k_proj(tokens), self.v_proj(tokens)))
        pooled = merge_heads(kernels.attention(q, k, v, training=self.training))  # (B, 1, D)
        return self.output_proj(pooled[:, 0])
