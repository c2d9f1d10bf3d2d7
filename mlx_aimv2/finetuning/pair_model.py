"""The image-text pair that contrastive training changes: which of its parts are trained, adapted or left alone."""

from __future__ import annotations

import math
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
from .tasks import ADAPTED, FROZEN, TRAINED, towers

PROJECTIONS = {"vision": "visual_projection", "text": "text_projection"}
SCALE = "trunk.logit_scale"
INSIDE = 1e-6  # a scale that stands at its very bound would have no gradient any more


class Contrast(nn.Module):
    """Images and captions in, their scaled cosines out.

    Attributes:
        trunk: the pair.
        frozen: the towers ("vision", "text") that nothing is trained of, projection included.
    """

    def __init__(self, pair: Aimv2Model, frozen: Iterable[str] = ()) -> None:
        """Take a pair whose parameters are frozen and unfrozen already."""
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

    def train(self, mode: bool = True) -> Contrast:
        """Set all parts to training mode, except towers without gradient: they compute faster without it."""
        super().train(mode)
        for tower in self.frozen:
            self.trunk[f"{tower}_model"].eval()
        return self


def build_contrast(model: AnyModel, adapter: AdapterConfig | None, options: FinetuneOptions) -> Contrast:
    """The pair with just that unfrozen which the options train, and with fresh adapters.

    The projection behind a tower is trained unless the tower is frozen, and the logit scale always.

    Raises:
        InputError: the model is no pair, or has not so many layers.
    """
    if not isinstance(model, Aimv2Model):
        raise InputError(
            f"--task contrastive trains an image-text pair, and {model.origin.name} is an image encoder alone: use"
            " --model lit, or --task classify"
        )
    states = towers(options)
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
            _train_projection(model[PROJECTIONS[tower]])
    model.unfreeze(keys=["logit_scale"], recurse=False)
    return Contrast(model, [tower for tower, state in states.items() if state == FROZEN])


def _unfreeze(tower: nn.Module, num_layers: int | None) -> None:
    if num_layers is None:
        tower.unfreeze()
        return
    for part in (*tower.encoder.layers[-num_layers:], tower.rms_norm):
        part.unfreeze()
    if "head" in tower:
        tower.head.unfreeze()


def _train_projection(projection: nn.Module) -> None:
    """Unfreeze a projection, in float32: 16 bits cannot hold how little a step changes it. A packed one stays."""
    if not isinstance(projection, nn.QuantizedLinear):
        projection.weight = projection.weight.astype(mx.float32)
        projection.unfreeze()


def scale_bounds(pair: Aimv2Model) -> dict[str, tuple[float, float]]:
    """What the logit scale is held between, so that it always has a gradient."""
    return {SCALE: (0.0, math.log(pair.config.max_logit_scale) - INSIDE)}


def pair_multipliers(model: Contrast, options: FinetuneOptions) -> dict[str, float]:
    """What each parameter's learning rate is multiplied by: by depth in each tower, and --head-lr outside of them."""
    paths = list(dict(tree_flatten(model.trainable_parameters())))
    outside = (options.head_lr or options.peak_learning_rate) / options.peak_learning_rate
    found = dict.fromkeys(paths, outside)
    for tower in PROJECTIONS:
        inside = [path for path in paths if path.startswith(f"trunk.{tower}_model.")]
        layers = len(model.trunk[f"{tower}_model"].encoder.layers)
        found |= multipliers(inside, layers, options.layer_decay, 1.0)
    return found
