"""The image-text pair of contrastive training: what is trained, adapted or frozen, and at which learning rates."""

from __future__ import annotations

from collections.abc import Iterable

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..adapters.attach import AdapterConfig, attach
from ..errors import InputError
from ..loading import AnyModel
from ..messages import counted
from ..models.lit import Aimv2Model, normalize
from ..quantization.scheme import unpack_modules
from ..training.step import multipliers
from .options import FinetuneOptions
from .task_rules import ADAPTED, FROZEN, TRAINED

PROJECTIONS = {"vision": "visual_projection", "text": "text_projection"}


class PairModel(nn.Module):
    """An image-text pair that gives the scaled cosines of images and captions.

    Attributes:
        trunk: the pair.
        frozen: the towers ("vision", "text") without any training, projection included.
    """

    def __init__(self, pair: Aimv2Model, frozen: Iterable[str] = ()) -> None:
        """Wrap a pair; the caller freezes and unfreezes its parameters."""
        super().__init__()
        self.trunk = pair
        self.frozen = frozenset(frozen)

    def __call__(self, pixels: mx.array, input_ids: mx.array) -> mx.array:
        """Logits (B, B) float32, by row images (B, H, W, 3) and by column captions (B, T)."""
        return self.trunk.logit_factor() * self.images(pixels) @ self.texts(input_ids).T

    def images(self, pixels: mx.array) -> mx.array:
        """Images (B, H, W, 3) as vectors (B, P) float32 of unit length."""
        return self._unit("vision", self.trunk.get_image_features(pixels))

    def texts(self, input_ids: mx.array) -> mx.array:
        """Captions (B, T) as vectors (B, P) float32 of unit length; padding stands on their right."""
        return self._unit("text", self.trunk.get_text_features(input_ids))

    def _unit(self, tower: str, features: mx.array) -> mx.array:
        return normalize(mx.stop_gradient(features) if tower in self.frozen else features)

    def train(self, mode: bool = True) -> PairModel:
        """Set training mode, except in frozen towers, which compute faster without it."""
        super().train(mode)
        for tower in self.frozen:
            self.trunk[f"{tower}_model"].eval()
        return self


def build_pair(model: AnyModel, adapter: AdapterConfig | None, options: FinetuneOptions) -> PairModel:
    """The pair with fresh adapters, and with all that the options train unfrozen.

    The projection behind a tower is trained unless the tower is frozen, and the logit scale always.

    Raises:
        InputError: the model is not a pair, or has fewer layers than ``num_layers``.
    """
    if not isinstance(model, Aimv2Model):
        raise InputError(
            f"--task contrastive trains an image-text pair, and {model.origin.name} is an image encoder alone: use"
            " --model lit, or --task classify"
        )
    states = options.towers
    for tower in states:
        count = len(model[f"{tower}_model"].encoder.layers)
        if states[tower] != FROZEN and options.num_layers is not None and options.num_layers > count:
            raise InputError(
                f"--num-layers {options.num_layers}: the {tower} encoder has {counted(count, 'layer')}"
            )
    model.freeze()
    if adapter is not None:
        attach(model, adapter, [tower for tower, state in states.items() if state == ADAPTED])
    for tower, state in states.items():
        if state == TRAINED:
            unpack_modules(model[f"{tower}_model"], mx.float32)
            _unfreeze(model[f"{tower}_model"], options.num_layers)
        if state != FROZEN:
            projection = model[PROJECTIONS[tower]]
            if not isinstance(projection, nn.QuantizedLinear):  # a quantized one stays frozen
                projection.weight = projection.weight.astype(mx.float32)  # to hold the change of a step
                projection.unfreeze()
    model.unfreeze(keys=["logit_scale"], recurse=False)
    return PairModel(model, [tower for tower, state in states.items() if state == FROZEN])


def _unfreeze(tower: nn.Module, num_layers: int | None) -> None:
    if num_layers is None:
        tower.unfreeze()
        return
    for module in (*tower.encoder.layers[-num_layers:], tower.rms_norm):
        module.unfreeze()
    if "head" in tower:
        tower.head.unfreeze()


def pair_multipliers(model: PairModel, options: FinetuneOptions) -> dict[str, float]:
    """The learning rate of each parameter over the peak: by depth in each tower, and ``head_lr`` outside of them."""
    paths = list(dict(tree_flatten(model.trainable_parameters())))
    outside = (options.head_lr or options.peak_learning_rate) / options.peak_learning_rate
    factors = dict.fromkeys(paths, outside)
    for tower in PROJECTIONS:
        inside = [path for path in paths if path.startswith(f"trunk.{tower}_model.")]
        layers = len(model.trunk[f"{tower}_model"].encoder.layers)
        factors |= multipliers(inside, layers, options.layer_decay, 1.0)
    return factors
