"""The text encoder of the image-text pair (LiT), always causal, as Apple trained it."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..backend.threads import computing
from ..config import Aimv2TextConfig
from ..errors import InputError
from .layers import Encoder, EncoderOutput, PositionTable, add_positions


class TextEmbeddings(nn.Module):
    """Token embedding and learned positions."""

    def __init__(self, config: Aimv2TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = PositionTable(config.max_position_embeddings, config.hidden_size)

    def __call__(self, input_ids: mx.array, dtype: mx.Dtype) -> mx.array:
        """Embed ids (B, T) to (B, T, D) in ``dtype``; a quantized table may come out in another one."""
        tokens = self.token_embedding(input_ids).astype(dtype)
        return add_positions(tokens, self.position_embedding.weight[: input_ids.shape[1]])


class Aimv2TextModel(nn.Module):
    """The text encoder, pooled at the first end-of-text token."""

    def __init__(self, config: Aimv2TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TextEmbeddings(config)
        self.encoder = Encoder(config)
        self.rms_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    @computing
    def __call__(
        self,
        input_ids: mx.array,
        attention_mask: mx.array | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> EncoderOutput:
        """Encode texts.

        Args:
            input_ids: (B, T) integers, at most ``max_position_embeddings`` long, padded on the right.
            attention_mask: (B, T), 0 for padding. It changes only the outputs at padding: in a causal model, no real
                token attends to padding on its right.
            output_hidden_states: also return the embeddings and every layer's output.
            output_attentions: also return the attention weights.

        Returns:
            ``pooler_output`` (B, D) is the token at the first EOS of each text, or its last token that is not
            masked where it has no EOS.

        Raises:
            InputError: the shape or dtype of an input does not fit the model.
        """
        self._check(input_ids, attention_mask)
        x, states, attentions = self.encoder(
            self.embeddings(input_ids, self.rms_norm.weight.dtype),
            causal_mask(input_ids.shape[1], attention_mask),
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        tokens = self.rms_norm(x).astype(mx.float32)  # (B, T, D)
        at = self._pooled_position(input_ids, attention_mask)  # (B, 1, 1)
        pooled = mx.take_along_axis(tokens, at, axis=1)[:, 0]
        return EncoderOutput(tokens, pooled, states, attentions)

    def _check(self, input_ids: mx.array, attention_mask: mx.array | None) -> None:
        shape, longest = tuple(input_ids.shape), self.config.max_position_embeddings
        if len(shape) != 2 or not mx.issubdtype(input_ids.dtype, mx.integer):
            raise InputError(f"input_ids must be (B, T) integers, not {shape} {input_ids.dtype}")
        if not 1 <= shape[1] <= longest:
            raise InputError(
                f"input_ids hold {shape[1]} tokens; this model takes 1 to {longest}: truncate them"
            )
        if attention_mask is not None and tuple(attention_mask.shape) != shape:
            raise InputError(
                f"attention_mask {tuple(attention_mask.shape)} must have the shape {shape} of input_ids"
            )

    def _pooled_position(self, input_ids: mx.array, attention_mask: mx.array | None) -> mx.array:
        is_eos = input_ids == self.config.eos_token_id
        last = mx.array(input_ids.shape[1] - 1)
        if attention_mask is not None:
            last = mx.argmax(mx.cumsum(attention_mask.astype(mx.int32), axis=1), axis=1)
        return mx.where(is_eos.any(axis=1), mx.argmax(is_eos, axis=1), last)[:, None, None]


def causal_mask(length: int, attention_mask: mx.array | None) -> mx.array:
    """True where a query (row) attends to a key (column): (T, T), or (B, 1, T, T) with padding.

    Every token attends to itself, padding too: a row without any True would give NaN.
    """
    positions = mx.arange(length)
    causal = positions[:, None] >= positions
    if attention_mask is None:
        return causal
    itself = positions[:, None] == positions
    return causal & (attention_mask.astype(mx.bool_)[:, None, None, :] | itself)
