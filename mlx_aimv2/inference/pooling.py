"""Pooling: from the tokens of an image to its vector."""

from __future__ import annotations

import mlx.core as mx

from ..errors import InputError
from ..loading import AnyModel
from ..models.lit import Aimv2Model
from ..models.vision import patch_grid

CHOICES = ("auto", "mean", "max", "head", "tokens")  # for the user; "auto" becomes "projected" or "mean"


def check_pooling_name(pooling: str) -> None:
    """Raise InputError for an unknown pooling, before a model is loaded."""
    if pooling not in CHOICES:
        raise InputError(f"pooling {pooling!r} is not one of {', '.join(CHOICES)}")


def check_pooling(model: AnyModel, pooling: str) -> str:
    """The name of the pooling for a model, "auto" resolved.

    Raises:
        InputError: an unknown name, or "head" for a model without a pooling head.
    """
    check_pooling_name(pooling)
    if pooling == "auto":
        return "projected" if model.config.is_pair else "mean"
    if pooling == "head" and not model.vision.config.use_head:
        raise InputError(
            "pooling head: this checkpoint has no pooling head (only the image-text pair has one)"
        )
    return pooling


def pool(model: AnyModel, pixel_values: mx.array, pooling: str) -> mx.array:
    """Vectors of a batch: (B, D), (B, P) for "projected", (B, h, w, D) for "tokens"; float32.

    Raises:
        InputError: the model has no such pooling.
    """
    if pooling == "projected":
        if not isinstance(model, Aimv2Model):
            raise InputError("this checkpoint has no projection")
        return model.get_image_features(pixel_values)  # (B, P)
    output = model.vision(pixel_values)
    if pooling == "head":
        if output.pooler_output is None:
            raise InputError("this checkpoint has no pooling head")
        return output.pooler_output  # (B, D)
    tokens = output.last_hidden_state  # (B, N, D)
    if pooling == "tokens":
        h, w = patch_grid(model.vision.config, pixel_values)
        return tokens.reshape(tokens.shape[0], h, w, -1)
    return tokens.max(axis=1) if pooling == "max" else tokens.mean(axis=1)  # (B, D)
