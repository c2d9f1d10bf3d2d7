"""The vision encoder: patches and their positions in, one token per patch out (Fini et al. 2024).

The paper is "Multimodal Autoregressive Pre-training of Large Vision Encoders"; see its section 3.
"""

from __future__ import annotations

import functools

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..backend.threads import computing
from ..config import Aimv2VisionConfig
from ..errors import InputError
from .layers import Encoder, EncoderOutput, PositionTable, add_positions
from .pooling_head import AttentionPoolingHead


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its kernel, written as one matrix product."""

    def __init__(self, config: Aimv2VisionConfig) -> None:
        super().__init__()
        p, channels = config.patch_size, config.num_channels
        scale = (p * p * channels) ** -0.5
        self.weight = mx.random.uniform(-scale, scale, (config.hidden_size, p, p, channels))
        self.bias = mx.zeros((config.hidden_size,))

    def __call__(self, pixel_values: mx.array) -> mx.array:
        """Cut (B, H, W, 3) into patches, row by row, and embed them: (B, h * w, D).

        The rest on the right and at the bottom is dropped, as a strided convolution does.
        """
        dim, p, _, channels = self.weight.shape
        batch, height, width, _ = pixel_values.shape
        h, w = height // p, width // p
        pixel_values = pixel_values.astype(self.weight.dtype)  # first: the patches are a copy
        patches = pixel_values[:, : h * p, : w * p].reshape(batch, h, p, w, p, channels)
        patches = patches.swapaxes(2, 3).reshape(batch, h * w, p * p * channels)
        return mx.addmm(self.bias, patches, self.weight.reshape(dim, -1).T)


@functools.lru_cache(maxsize=32)
def _sine_cosine(length: int, dim: int) -> np.ndarray:
    """[sin | cos] of positions 0..length-1 along one axis: (length, dim / 2) float32."""
    omega = 10000.0 ** -(np.arange(dim // 4, dtype=np.float64) / (dim // 4))
    angles = np.arange(length, dtype=np.float64)[:, None] * omega
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def sine_cosine_positions(h: int, w: int, dim: int) -> mx.array:
    """The fixed positions of native resolution, (h * w, D) float32, row by row.

    A vector is [sin x | cos x | sin y | cos y], x the column and y the row, omega_k = 10000^(-k / (D / 4)).
    """
    columns = mx.broadcast_to(mx.array(_sine_cosine(w, dim))[None], (h, w, dim // 2))
    rows = mx.broadcast_to(mx.array(_sine_cosine(h, dim))[:, None], (h, w, dim // 2))
    return mx.concatenate([columns, rows], axis=-1).reshape(h * w, dim)


class VisionEmbeddings(nn.Module):
    """Patch embedding, norm, positions."""

    def __init__(self, config: Aimv2VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbedding(config)
        self.rms_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        if not config.is_native:
            self.position_embedding = PositionTable(config.grid**2, config.hidden_size)

    def __call__(self, pixel_values: mx.array) -> mx.array:
        """Embed (B, H, W, 3) to (B, N, D)."""
        h, w = patch_grid(self.config, pixel_values)
        tokens = self.rms_norm(self.patch_embed(pixel_values))
        if self.config.is_native:
            return add_positions(tokens, sine_cosine_positions(h, w, self.config.hidden_size))
        return add_positions(tokens, self.position_embedding.weight)


def patch_grid(config: Aimv2VisionConfig, pixel_values: mx.array) -> tuple[int, int]:
    """The number of patches (h, w) of the images in a batch, which is checked.

    Raises:
        InputError: the shape is not (B, H, W, channels), or the size is below one patch or not the model's.
    """
    shape, p = tuple(pixel_values.shape), config.patch_size
    if len(shape) != 4 or shape[3] != config.num_channels:
        hint = "; the channels come last here" if len(shape) == 4 and shape[1] == config.num_channels else ""
        raise InputError(f"pixel_values must be (B, H, W, {config.num_channels}), not {shape}{hint}")
    if not mx.issubdtype(pixel_values.dtype, mx.floating):
        raise InputError(
            f"pixel_values must be normalized floats, not {pixel_values.dtype}; use the processor"
        )
    h, w = shape[1] // p, shape[2] // p
    if not h or not w:
        raise InputError(f"pixel_values of {shape[1]} x {shape[2]} pixels hold no patch of {p} x {p}")
    if not config.is_native and (h, w) != (config.grid, config.grid):
        size = config.image_size
        raise InputError(
            f"this model takes {size} x {size} pixels, not {shape[1]} x {shape[2]}: resize the images (the"
            " processor does), load it with interpolate_positions, or use the native-resolution model"
        )
    return h, w


class Aimv2VisionModel(nn.Module):
    """The vision encoder, with a pooling head where the checkpoint has one."""

    def __init__(self, config: Aimv2VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = VisionEmbeddings(config)
        self.encoder = Encoder(config)
        self.rms_norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        if config.use_head:
            self.head = AttentionPoolingHead(config)

    @property
    def vision(self) -> Aimv2VisionModel:
        """This encoder; of an image-text pair, its vision encoder."""
        return self

    @computing
    def __call__(
        self, pixel_values: mx.array, output_hidden_states: bool = False, output_attentions: bool = False
    ) -> EncoderOutput:
        """Encode images.

        Args:
            pixel_values: (B, H, W, 3) floats, normalized as the checkpoint's processor does. Fixed-size models
                take ``image_size`` on a side; native ones any size of at least one patch.
            output_hidden_states: also return the embeddings and every layer's output.
            output_attentions: also return the attention weights, which takes time and memory.

        Returns:
            One token per patch, row by row, after the final norm; ``pooler_output`` is None without a head.

        Raises:
            InputError: the shape or dtype of ``pixel_values`` does not fit the model.
        """
        x = self.embeddings(pixel_values)
        x, states, attentions = self.encoder(
            x, output_hidden_states=output_hidden_states, output_attentions=output_attentions
        )
        tokens = self.rms_norm(x)
        pooled = self.head(tokens).astype(mx.float32) if self.config.use_head else None
        return EncoderOutput(tokens.astype(mx.float32), pooled, states, attentions)
