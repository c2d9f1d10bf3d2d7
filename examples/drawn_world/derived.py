"""Weights for larger images, and the mean of the weights of several models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_aimv2.errors import InputError
from mlx_aimv2.models.lit import Aimv2Model
from mlx_aimv2.models.vision import sine_cosine_positions

POSITION_TABLE = "vision_model.embeddings.position_embedding.weight"


def enlarged_tensors(model: Aimv2Model, image_size: int) -> dict[str, mx.array]:
    """Canonical tensors of the same pair for larger images, for further training.

    The new position table is that of `initial_tensors` plus the average change of the old table in training, because
    what the model learned at one place of a small image holds at every place of a large one.

    Args:
        model: trained from `initial_tensors`.
        image_size: edge of the new images in pixels.
    """
    config = model.config.vision_config
    table = model.vision_model.embeddings.position_embedding.weight
    larger = replace(config, image_size=image_size)
    begun = sine_cosine_positions(config.grid, config.grid, config.hidden_size)
    moved = (table - begun).mean(axis=0)  # (D,)
    positions = sine_cosine_positions(larger.grid, larger.grid, config.hidden_size) + moved
    return {**dict(tree_flatten(model.parameters())), POSITION_TABLE: positions}


def mean_tensors(models: Sequence[Aimv2Model]) -> dict[str, mx.array]:
    """Canonical tensors of the mean of models that were trained from the same checkpoint.

    The mean is usually better than each model (Wortsman et al. 2022, "Model soups").

    Raises:
        InputError: there is no model, or the models have different parameters.
    """
    each = [dict(tree_flatten(model.parameters())) for model in models]
    if not each or any(tensors.keys() != each[0].keys() for tensors in each):
        raise InputError("the mean needs one model or more with the same parameters")
    return {name: mx.stack([tensors[name] for tensors in each]).mean(axis=0) for name in each[0]}
