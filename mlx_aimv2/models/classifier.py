"""A vision encoder with a classification head: images in, one logit per class out."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from ..backend.threads import computing
from ..errors import InputError
from .classifier_heads import AttentiveHead, KnnHead, LinearHead
from .vision import Aimv2VisionModel

POOLINGS = ("mean", "head", "attentive")
SINGLE_LABEL, MULTI_LABEL = "single-label", "multi-label"  # tasks


class Classifier(nn.Module):
    """A vision encoder and a classification head.

    Attributes:
        trunk: the encoder.
        head: `LinearHead`, `AttentiveHead`, or any module from features to logits.
        pooling: "mean" (of the normed tokens), "head" (the checkpoint's own pooling head) or "attentive" (all
            tokens, for a head that pools by itself).
        labels: the names of the classes, in the order of the logits; empty if unknown.
        task: "single-label" (one of the classes) or "multi-label" (any number of them).
    """

    def __init__(self, trunk: Aimv2VisionModel, head: nn.Module, pooling: str) -> None:
        """Join an encoder and a head.

        Raises:
            InputError: the pooling is unknown, or does not fit the encoder or the head.
        """
        super().__init__()
        _check_pooling(trunk, head, pooling)
        self.trunk, self.head, self.pooling = trunk, head, pooling
        self.labels: tuple[str, ...] = ()
        self.task = SINGLE_LABEL

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels."""
        return self.task == MULTI_LABEL

    @computing
    def features(self, pixel_values: mx.array) -> mx.array:
        """The input of the head, float32: (B, D) of images (B, H, W, 3), or (B, N, D) with pooling "attentive".

        Raises:
            InputError: ``pixel_values`` does not fit the encoder.
        """
        output = self.trunk(pixel_values)
        if self.pooling == "attentive":
            return output.last_hidden_state
        if self.pooling == "mean":
            return output.last_hidden_state.mean(axis=1)
        if output.pooler_output is None:
            raise InputError("this checkpoint has no pooling head")
        return output.pooler_output

    @computing
    def __call__(self, pixel_values: mx.array) -> mx.array:
        """Logits (B, C) float32 of images (B, H, W, 3).

        Raises:
            InputError: ``pixel_values`` does not fit the encoder.
        """
        return self.head(self.features(pixel_values)).astype(mx.float32)


def _check_pooling(trunk: Aimv2VisionModel, head: nn.Module, pooling: str) -> None:
    if pooling not in POOLINGS:
        raise InputError(f"pooling {pooling!r} is not one of {', '.join(POOLINGS)}")
    if pooling == "head" and not trunk.config.use_head:
        raise InputError(
            "pooling head: this checkpoint has no pooling head (only the image-text pair has one)"
        )
    if isinstance(head, LinearHead | KnnHead) and pooling == "attentive":
        raise InputError("pooling attentive needs an attentive head")
    if isinstance(head, AttentiveHead) and pooling != "attentive":
        raise InputError(f"an attentive head pools by itself: use pooling attentive, not {pooling}")
