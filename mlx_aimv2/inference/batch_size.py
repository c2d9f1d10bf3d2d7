"""`BatchSize`: how many images of a size share a batch."""

from __future__ import annotations

import math

import mlx.core as mx
from mlx.utils import tree_flatten

from ..backend.blas import divide_threads
from ..backend.device import on_cpu
from ..backend.memory import gpu_bytes
from ..errors import InputError
from ..events import Notice, warn
from ..models.vision import Aimv2VisionModel

# Tokens in a batch: enough to fill the device, little enough for its memory. One image of 256 tokens nearly
# fills a CPU, and a batch cannot be interrupted.
CPU_TOKENS, GPU_TOKENS = 512, 16384
AT_ONCE = 2  # batches whose activations a GPU holds: one computes, the next one is being prepared
SHARE = 0.5  # of the free memory that batches get: MLX keeps freed buffers, and other programs need some


class BatchSize:
    """The number of images in a batch: what the user chose, or what suits the device; less after a lack of memory."""

    def __init__(self, chosen: int | None, tower: Aimv2VisionModel) -> None:
        """Set the options.

        Args:
            chosen: images in a batch, which a CPU may compute in parts; None for what suits the device, its memory,
                and the number of patches.
            tower: the vision encoder that computes.

        Raises:
            InputError: ``chosen`` is under 1.
        """
        if chosen is not None and chosen < 1:
            raise InputError(f"batch_size must be at least 1, not {chosen}")
        self.chosen = chosen
        self._tower = tower
        self._gpu_tokens: int | None = None  # that suit the GPU
        self._most: float = math.inf  # tokens, after a lack of memory

    def of(self, height: int, width: int) -> int:
        """The number of images of this size, in pixels, in a batch."""
        tokens = self._tokens(height, width)
        count = self._suitable_tokens() // tokens
        if self.chosen is not None:
            count = min(self.chosen, most_cpu_tokens() // tokens) if on_cpu() else self.chosen
        return int(max(1, min(count, self._most // tokens)))

    def reduce(self, count: int, height: int, width: int) -> None:
        """Halve later batches, because ``count`` images of this size did not fit in memory; warn the first time."""
        if self._most == math.inf:
            warn(
                Notice(
                    f"not enough memory for {count} images of {width} x {height} pixels at once:"
                    " batches are smaller from now on"
                )
            )
        self._most = min(self._most, max(1, count // 2) * self._tokens(height, width))

    def _tokens(self, height: int, width: int) -> int:
        patch = self._tower.config.patch_size
        return max(1, (height // patch) * (width // patch))

    def _suitable_tokens(self) -> int:
        if on_cpu():
            return CPU_TOKENS
        if self._gpu_tokens is None:
            self._gpu_tokens = gpu_tokens(self._tower)
        return self._gpu_tokens


def most_cpu_tokens() -> int:
    """The tokens in a batch that a CPU computes at once: larger batches take as long, and more memory."""
    return CPU_TOKENS * max(2, divide_threads())


def gpu_tokens(tower: Aimv2VisionModel) -> int:
    """The tokens in a batch that suit a GPU and its memory."""
    total = gpu_bytes()
    if total is None:
        return GPU_TOKENS
    weights = sum(x.nbytes for x in dict(tree_flatten(tower.parameters())).values())
    free = total - max(weights, mx.get_active_memory())  # weights are read when they are first needed
    return max(0, min(GPU_TOKENS, int(SHARE * free) // (AT_ONCE * token_bytes(tower))))


def token_bytes(tower: Aimv2VisionModel) -> int:
    """Bytes of the activations of one token, estimated: its pixels, and the widest step of a layer."""
    config, itemsize = tower.config, tower.embeddings.patch_embed.weight.dtype.size
    # residual, its norm, gate, up and their product
    mlp = 2 * config.hidden_size + 3 * config.intermediate_size
    # residual, its norm, queries, keys, values and their mix
    attention = 6 * config.hidden_size
    pixels = 4 * config.num_channels * config.patch_size**2
    return int(pixels + itemsize * max(mlp, attention))
