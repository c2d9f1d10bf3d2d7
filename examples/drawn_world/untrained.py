"""Write a small checkpoint with random weights, in any layout of the published checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

from mlx_aimv2.checkpoints.foreign_configs import original_config
from mlx_aimv2.checkpoints.layouts import LAYOUTS
from mlx_aimv2.config import Aimv2Config, Aimv2TextConfig, Aimv2VisionConfig, AnyConfig
from mlx_aimv2.errors import InputError
from mlx_aimv2.loading import make_model
from mlx_aimv2.models.vision import sine_cosine_positions
from mlx_aimv2.processing.image_settings import find_settings, write_settings
from mlx_aimv2.storage.atomic import new_folder
from mlx_aimv2.storage.json_files import write_json

from .vocabulary import LEAST, Vocabulary, write_vocabulary

VOCABULARY = LEAST  # every byte, inside a word and at its end, and two special tokens

TINY_VISION = Aimv2VisionConfig(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=3,
    num_attention_heads=2,
    image_size=56,
    use_head=True,
)
TINY_TEXT = Aimv2TextConfig(
    vocab_size=VOCABULARY,
    hidden_size=48,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=3,
    eos_token_id=VOCABULARY - 1,
)
TINY = Aimv2Config(TINY_VISION, TINY_TEXT, projection_dim=32)


def random_tensors(config: AnyConfig, seed: int = 0) -> dict[str, mx.array]:
    """Canonical tensors with random values; the same seed gives the same tensors."""
    keys = iter(mx.random.split(mx.random.key(seed), 4096))

    def draw(x: mx.array) -> mx.array:
        if x.ndim == 0:
            return x
        noise = mx.random.normal(x.shape, key=next(keys))
        return 1.0 + 0.1 * noise if x.ndim == 1 and x.size == 1 else noise * max(x.shape[-1], 1) ** -0.5

    tensors = dict(tree_flatten(tree_map(draw, make_model(config).parameters())))
    return {name: 1.0 + 0.3 * x if "norm" in name else x for name, x in tensors.items()}


def initial_tensors(config: AnyConfig, seed: int = 0) -> dict[str, mx.array]:
    """Canonical tensors for training from scratch; the same seed gives the same tensors.

    The position table of a vision encoder starts as the sines and cosines of native resolution: from random
    positions, the model learns shapes much more slowly.
    """
    with _seeded(seed):
        model = make_model(config)
    vision = model.vision
    if "position_embedding" in vision.embeddings:
        h = w = vision.config.grid
        positions = sine_cosine_positions(h, w, vision.config.hidden_size)
        vision.embeddings.position_embedding.weight = positions
    tensors = dict(tree_flatten(model.parameters()))
    mx.eval(tensors)
    return tensors


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed MLX's global random generator, which its initializers use, and restore it after the block."""
    state: Any = mx.random.state
    high, low = state[0].tolist()
    mx.random.seed(seed)
    try:
        yield
    finally:
        mx.random.seed(high << 32 | low)  # the state is the halves of a seed and cannot be set directly


def write_checkpoint(
    folder: Path,
    config: AnyConfig = TINY,
    layout: str = "apple",
    dtype: mx.Dtype = mx.float32,
    seed: int = 0,
    *,
    draw: Callable[[AnyConfig, int], dict[str, mx.array]] = random_tensors,
    vocabulary: Vocabulary | None = None,
) -> Path:
    """Write a checkpoint: weights, config.json, preprocessor_config.json and tokenizer files.

    Args:
        folder: the folder to write; it must not exist.
        config: the model; by default a tiny image-text pair.
        layout: a name in `mlx_aimv2.checkpoints.layouts.LAYOUTS`.
        dtype: of the stored weights.
        seed: of the weights.
        draw: returns the weights for a config and a seed.
        vocabulary: for the tokenizer of a pair; one token for every byte if None.

    Returns:
        ``folder``.

    Raises:
        InputError: the layout has no place for the model.
        OutputError: the folder exists or cannot be written.
    """
    canonical = draw(config, seed)
    tensors, unknown = LAYOUTS[layout].from_canonical(canonical)
    if unknown:
        raise InputError(f"the layout {layout} has no place for {unknown[0]} of this model")
    entries = config.to_dict() if layout in ("mlx", "transformers") else original_config(config)
    with new_folder(folder) as partial:
        stored = {name: mx.contiguous(x.astype(dtype)) for name, x in tensors.items()}
        note = "mlx" if layout in ("mlx", "apple-mlx") else "pt"
        mx.save_safetensors(str(partial / "model.safetensors"), stored, metadata={"format": note})
        write_json(partial / "config.json", entries)
        write_settings(partial, find_settings(partial, config).config)
        if isinstance(config, Aimv2Config):
            most = config.text_config.max_position_embeddings
            write_vocabulary(partial, vocabulary or Vocabulary(), most)
    return folder
