"""The architecture to measure, from a name, without its weights: speed does not depend on their values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ..backend.device import without_cache
from ..backend.random_state import caller_random_state
from ..backend.threads import computing
from ..checkpoints.checkpoint import KEPT_FLOAT32
from ..checkpoints.checkpoint_names import checked_text, folder_or_model, local_folder
from ..config import Aimv2Config, Aimv2TextConfig, Aimv2VisionConfig, AnyConfig
from ..events import OnEvent, warn
from ..loading import AnyModel, inspect, make_model
from ..models.joint_product import join_projections
from ..presets import Preset, find
from ..processing.image_config import ImageProcessorConfig
from ..processing.image_settings import find_settings
from ..quantization.recipes import kept_reason
from ..quantization.scheme import Quantization, Scheme, quantize_modules

NATIVE_SIZE = 224  # in the config of the native model, without meaning
BLOCK, SCALE = 1 << 20, 0.02  # random numbers that are repeated, and their standard deviation


@dataclass(frozen=True)
class Architecture:
    """A model without weights.

    Attributes:
        name: of the checkpoint.
        config: of the model.
        settings: how it reads images.
    """

    name: str
    config: AnyConfig
    settings: ImageProcessorConfig

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all weights by name."""
        with caller_random_state():
            parameters = dict(tree_flatten(make_model(self.config).parameters()))
        return {name: tuple(x.shape) for name, x in parameters.items()}

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(map(math.prod, self.shapes.values()))

    @computing
    def random_model(self, dtype: mx.Dtype, bits: int | None = None) -> AnyModel:
        """The model with random weights, in memory.

        Args:
            dtype: of its weights.
            bits: of the matrices that `convert` quantizes, in groups of 64; None for plain ones.
        """
        with caller_random_state(), without_cache():
            model = make_model(self.config)
            block = np.random.default_rng(0).normal(0, SCALE, BLOCK).astype(np.float32)
            parameters = dict(tree_flatten(model.parameters()))
            model.load_weights([(name, _weight(name, x, block, dtype)) for name, x in parameters.items()])
            if bits is not None:
                scheme = Scheme(bits=bits)
                names = [name for name, x in parameters.items() if kept_reason(name, x.shape, scheme) is None]
                paths = [name.removesuffix(".weight") for name in names]
                quantize_modules(model, Quantization(scheme), paths)
            del parameters
            join_projections(model)
            for x in dict(tree_flatten(model.parameters())).values():
                mx.eval(x)  # one after the other, so that little else is in memory
        model.eval()
        return model


def _weight(name: str, x: mx.array, block: np.ndarray, dtype: mx.Dtype) -> mx.array:
    """A weight of the shape of ``x``, in memory: matrices are random, everything else as in a new model."""
    if x.ndim > 1:  # repeated numbers: 437 million new ones would take 16 s on a CPU
        x = mx.array(np.resize(block, x.shape))
    x = x.astype(mx.float32 if name.endswith(KEPT_FLOAT32) else dtype)
    mx.eval(x)
    return x


def find_architecture(name: str, on_event: OnEvent = warn) -> Architecture:
    """The architecture of a checkpoint folder, of a published checkpoint (which is not downloaded), or of `demo`.

    Raises:
        InputError: the name is neither a folder nor that of a model.
        CheckpointError: the folder holds no checkpoint, or its files contradict each other.
        HubError: another repository than the published ones cannot be downloaded.
    """
    text = checked_text(name)
    folder, preset = folder_or_model(text, local_folder(text), on_event), find(text)
    if folder is None and preset is not None:
        config = preset_config(preset)
        vision = config.vision
        return Architecture(
            preset.name, config, ImageProcessorConfig.default(vision.image_size, vision.is_native)
        )
    checkpoint = inspect(text, on_event=on_event)
    settings = find_settings(checkpoint.resolved.folder, checkpoint.config).config
    return Architecture(checkpoint.resolved.name, checkpoint.config, settings)


def preset_config(preset: Preset) -> AnyConfig:
    """The configuration of a published checkpoint."""
    trunk = preset.trunk
    vision = Aimv2VisionConfig(
        hidden_size=trunk.hidden_size,
        intermediate_size=trunk.intermediate_size,
        num_hidden_layers=trunk.num_hidden_layers,
        num_attention_heads=trunk.num_attention_heads,
        image_size=preset.image_size or NATIVE_SIZE,
        use_head=preset.has_text,
        is_native=preset.image_size is None,
    )
    return Aimv2Config(vision, Aimv2TextConfig()) if preset.has_text else vision
