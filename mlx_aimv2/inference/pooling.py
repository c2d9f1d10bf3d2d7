"""From an image's tokens to the vector that stands for it: a table of ways."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from ..errors import InputError
from ..loading import AnyModel
from ..models.lit import Aimv2Model
from ..models.vision import patch_grid

Pool = Callable[[AnyModel, mx.array], mx.array]


def _mean(model: AnyModel, pixel_values: mx.array) -> mx.array:
    return model.vision(pixel_values).last_hidden_state.mean(axis=1)  # (B, D)


def _max(model: AnyModel, pixel_values: mx.array) -> mx.array:
    return model.vision(pixel_values).last_hidden_state.max(axis=1)  # (B, D)


def _head(model: AnyModel, pixel_values: mx.array) -> mx.array:
    pooled = model.vision(pixel_values).pooler_output
    if pooled is None:
        raise InputError("this checkpoint has no pooling head")
    return pooled  # (B, D)


def _tokens(model: AnyModel, pixel_values: mx.array) -> mx.array:
    vision = model.vision
    h, w = patch_grid(vision.config, pixel_values)
    tokens = vision(pixel_values).last_hidden_state
    return tokens.reshape(tokens.shape[0], h, w, -1)  # (B, h, w, D)


def _projected(model: AnyModel, pixel_values: mx.array) -> mx.array:
    if not isinstance(model, Aimv2Model):
        raise InputError("this checkpoint has no projection")
    return model.get_image_features(pixel_values)  # (B, P)


POOLINGS: dict[str, Pool] = {
    "mean": _mean,
    "max": _max,
    "head": _head,
    "tokens": _tokens,
    "projected": _projected,
}
CHOICES = ("auto", "mean", "max", "head", "tokens")  # what a user may ask for


def check_choice(pooling: str) -> None:
    """Refuse a name that is no pooling of any model.

    Raises:
        InputError: an unknown name.
    """
    if pooling not in CHOICES:
        raise InputError(f"pooling {pooling!r} is not one of {', '.join(CHOICES)}")


def check_pooling(model: AnyModel, pooling: str) -> str:
    """The name of the pooling to use: "auto" resolved, others checked against the model.

    Raises:
        InputError: an unknown name, or "head" for a model without one.
    """
    check_choice(pooling)
    if pooling == "auto":
        return "projected" if isinstance(model, Aimv2Model) else "mean"
    if pooling == "head" and not model.vision.config.use_head:
        raise InputError(
            "pooling head: this checkpoint has no pooling head (only the image-text pair has one)"
        )
    return pooling


def pool(model: AnyModel, pixel_values: mx.array, pooling: str) -> mx.array:
    """Vectors of a batch: (B, D), (B, P) for the projected embedding, (B, h, w, D) for tokens; float32."""
    return POOLINGS[pooling](model, pixel_values)
