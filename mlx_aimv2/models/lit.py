"""The image-text pair (LiT): both encoders, two projections, one logit scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from ..backend.threads import computing
from ..config import Aimv2Config
from ..errors import InputError
from .layers import EncoderOutput
from .text import Aimv2TextModel
from .vision import Aimv2VisionModel


@dataclass(frozen=True)
class Aimv2Output:
    """The output of an image-text pair.

    Attributes:
        logits_per_image: (B images, B texts) float32, the scaled cosines.
        logits_per_text: its transpose.
        image_embeds: (B, P) float32, unit length.
        text_embeds: (B, P) float32, unit length.
        vision_model_output: the vision encoder's output.
        text_model_output: the text encoder's output.
        loss: the symmetric contrastive loss (scalar), if asked for.
    """

    logits_per_image: mx.array
    logits_per_text: mx.array
    image_embeds: mx.array
    text_embeds: mx.array
    vision_model_output: EncoderOutput
    text_model_output: EncoderOutput
    loss: mx.array | None = None


class Aimv2Model(nn.Module):
    """An image-text pair: it embeds images and texts in one space."""

    def __init__(self, config: Aimv2Config) -> None:
        """Build the model of ``config`` with random weights.

        Raises:
            InputError: the vision config has no pooling head, which the projection needs.
        """
        super().__init__()
        if not config.vision_config.use_head:
            raise InputError("the image-text pair needs a vision config with use_head=True")
        self.config = config
        self.vision_model = Aimv2VisionModel(config.vision_config)
        self.text_model = Aimv2TextModel(config.text_config)
        self.visual_projection = nn.Linear(
            config.vision_config.hidden_size, config.projection_dim, bias=False
        )
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = mx.array(config.logit_scale_init_value)

    @property
    def vision(self) -> Aimv2VisionModel:
        """The vision encoder."""
        return self.vision_model

    @computing
    def __call__(
        self,
        input_ids: mx.array,
        pixel_values: mx.array,
        attention_mask: mx.array | None = None,
        return_loss: bool = False,  # three booleans, as in transformers
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> Aimv2Output:
        """Compare every image with every text.

        Args:
            input_ids: (B texts, T) integers.
            pixel_values: (B images, H, W, 3) normalized floats.
            attention_mask: (B texts, T), 0 where a token is padding.
            return_loss: also return the contrastive loss; image k then belongs to text k.
            output_hidden_states: both encoders return all their hidden states.
            output_attentions: both encoders return all their attention weights.

        Raises:
            InputError: an input does not fit the model, or ``return_loss`` with unequal counts.
        """
        if return_loss and input_ids.shape[0] != pixel_values.shape[0]:
            raise InputError(
                f"return_loss needs a text for each image, not {input_ids.shape[0]} texts"
                f" for {pixel_values.shape[0]} images"
            )
        vision = self.vision_model(pixel_values, output_hidden_states, output_attentions)
        text = self.text_model(input_ids, attention_mask, output_hidden_states, output_attentions)
        image_embeds = normalize(self._project_image(vision))
        text_embeds = normalize(self._project_text(text))
        logits_per_text = self.logit_factor() * text_embeds @ image_embeds.T
        return Aimv2Output(
            logits_per_image=logits_per_text.T,
            logits_per_text=logits_per_text,
            image_embeds=image_embeds,
            text_embeds=text_embeds,
            vision_model_output=vision,
            text_model_output=text,
            loss=contrastive_loss(logits_per_text) if return_loss else None,
        )

    @computing
    def get_image_features(self, pixel_values: mx.array) -> mx.array:
        """Images (B, H, W, 3), projected and not normalized: (B, P) float32."""
        return self._project_image(self.vision_model(pixel_values))

    @computing
    def get_text_features(self, input_ids: mx.array, attention_mask: mx.array | None = None) -> mx.array:
        """Texts (B, T), projected and not normalized: (B, P) float32."""
        return self._project_text(self.text_model(input_ids, attention_mask))

    @computing
    def logit_factor(self) -> mx.array:
        """The factor of the cosines: exp of the learned scale, clamped to 1..max_logit_scale, float32."""
        return mx.exp(
            mx.clip(self.logit_scale.astype(mx.float32), 0.0, math.log(self.config.max_logit_scale))
        )

    def _project_image(self, vision: EncoderOutput) -> mx.array:
        return _project(self.visual_projection, vision.pooler_output)

    def _project_text(self, text: EncoderOutput) -> mx.array:
        return _project(self.text_projection, text.pooler_output)


AnyModel = Aimv2Model | Aimv2VisionModel


def _project(projection: nn.Module, pooled: mx.array | None) -> mx.array:
    if pooled is None:
        raise InputError("the encoder has no pooled output to project")
    return projection(pooled).astype(mx.float32)  # pooled is float32: one small product, kept exact


def normalize(x: mx.array) -> mx.array:
    """``x`` (..., D) to unit length along the last axis, in float32; a zero vector stays zero."""
    x = x.astype(mx.float32)
    return x / mx.maximum(mx.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def contrastive_loss(logits_per_text: mx.array) -> mx.array:
    """Mean of the cross-entropies text to image and image to text; row k belongs to column k (CLIP, figure 3)."""
    targets = mx.arange(logits_per_text.shape[0])
    return 0.5 * (
        nn.losses.cross_entropy(logits_per_text, targets, reduction="mean")
        + nn.losses.cross_entropy(logits_per_text.T, targets, reduction="mean")
    )
