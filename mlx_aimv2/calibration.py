"""Quantizing the vision encoder with pictures: layer after layer, each weight for what it really multiplies.

The pictures run through the layers that are quantized already, so that a layer also makes up for what was lost
before it. One layer is held at a time, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from .checkpoints.quantize import Scheme
from .config import Aimv2Config, Aimv2VisionConfig, AnyConfig
from .errors import Aimv2Error, InputError, NonFiniteError
from .events import OnEvent, Progress, Skipped, ignore
from .gptq import Inputs, Packed, quantize
from .models import kernels
from .models.layers import EncoderLayer, merge_heads, split_heads
from .models.vision import Aimv2VisionModel
from .planning import vision_prefix
from .processing.decode import ImageInput
from .processing.processor import Processor

PICTURES = 32  # enough: the tokens of each count as samples
MAX_PATCHES = 1024  # of a picture of native resolution: all pictures' tokens are held at once
LAYERS = "encoder.layers."
Tensors = Mapping[str, mx.array]
Round = Callable[[nn.Module, str, Sequence[str], list[mx.array]], None]
"""Called with a module, its path, the names of projections in it, and the inputs they share."""


def read_pictures(images: Sequence[ImageInput], processor: Processor, on_event: OnEvent) -> list[mx.array]:
    """Up to `PICTURES` pictures, spread evenly over ``images``, each (1, H, W, 3); broken ones are reported.

    Raises:
        InputError: none can be read.
    """
    pixels: list[mx.array] = []
    count = min(len(images), PICTURES)
    for index in (number * len(images) // count for number in range(count)):
        try:
            pixels.append(processor(images=[images[index]])["pixel_values"])
        except Aimv2Error as error:
            on_event(Skipped(str(images[index]), str(error)))
    if not pixels:
        raise InputError("none of the pictures to calibrate with can be read")
    return pixels


class Calibration:
    """The vision encoder's layers, quantized with pictures as they are asked for."""

    def __init__(
        self,
        config: AnyConfig,
        tensors: Tensors,
        schemes: Mapping[str, Scheme],
        dtype: mx.Dtype,
        on_event: OnEvent = ignore,
    ) -> None:
        """Get ready.

        Args:
            config: the model.
            tensors: plain canonical tensors; those of a layer are read when it is quantized.
            schemes: how to quantize each weight, by its name, in affine mode; the others stay.
            dtype: of scales and biases.
            on_event: called with progress.
        """
        self._config = config.vision_config if isinstance(config, Aimv2Config) else config
        self._prefix = vision_prefix(config)
        self._tensors, self._schemes, self._dtype, self._on_event = tensors, schemes, dtype, on_event

    def layers(self, pixels: Iterable[mx.array]) -> Iterator[dict[str, Packed]]:
        """Quantize one layer after the other; the embeddings are computed at once, the layers when asked for.

        Args:
            pixels: pictures, each (1, H, W, 3), normalized.

        Returns:
            For each layer, packed weight, scales and biases by the name of the weight.
        """
        return self._layers(self._embed(pixels))

    def _layers(self, tokens: list[mx.array]) -> Iterator[dict[str, Packed]]:
        for number in range(self._config.num_hidden_layers):
            layer, start = EncoderLayer(self._config), f"{self._prefix}{LAYERS}{number}."
            layer.load_weights(_part(self._tensors, start))
            layer.eval()
            packed: dict[str, Packed] = {}
            tokens = run(layer, tokens, self._rounding(start, packed))
            self._on_event(Progress("calibrating", number + 1, self._config.num_hidden_layers, unit="layers"))
            yield packed

    def _embed(self, pixels: Iterable[mx.array]) -> list[mx.array]:
        """Tokens (1, N, D) of every picture before the first layer."""
        config: Aimv2VisionConfig = replace(
            self._config, num_hidden_layers=1, use_head=False
        )  # its layer is not used
        model = Aimv2VisionModel(config)
        model.embeddings.load_weights(_part(self._tensors, f"{self._prefix}embeddings."))
        tokens = [model.embeddings(picture) for picture in pixels]
        mx.eval(tokens)
        return tokens

    def _rounding(self, start: str, packed: dict[str, Packed]) -> Round:
        """Quantizes projections; the layer goes on with what is left of them."""

        def rounded(module: nn.Module, path: str, names: Sequence[str], inputs: list[mx.array]) -> None:
            chosen = {name: f"{start}{path}.{name}.weight" for name in names}
            chosen = {name: full for name, full in chosen.items() if full in self._schemes}
            if not chosen:
                return
            statistics = Inputs.of(_gram(inputs))
            for name, full in chosen.items():
                scheme, projection = self._schemes[full], module[name]
                packed[full] = quantize(np.array(projection.weight), statistics, scheme, self._dtype)
                projection.weight = mx.dequantize(*packed[full], **scheme.arguments()).astype(mx.float32)

        return rounded


def _part(tensors: Tensors, start: str) -> list[tuple[str, mx.array]]:
    """The tensors below a name, in float32, without it."""
    return [
        (name[len(start) :], x.astype(mx.float32)) for name, x in tensors.items() if name.startswith(start)
    ]


def _gram(inputs: list[mx.array]) -> np.ndarray:
    """The sum of x x^T over all tokens: (D, D)."""
    total = mx.zeros((inputs[0].shape[-1],) * 2)
    for x in inputs:
        flat = x.reshape(-1, x.shape[-1])  # (N, D)
        total = total + flat.T @ flat
        mx.eval(total)
    gram = np.array(total)
    if not np.isfinite(gram).all():
        raise NonFiniteError(
            "the pictures to calibrate with give NaN or infinity: the checkpoint may be damaged"
        )
    return gram


def run(layer: EncoderLayer, tokens: list[mx.array], rounded: Round) -> list[mx.array]:
    """A layer over pictures' tokens, each (1, N, D), where every projection is rounded before it is used.

    The same as calling ``layer``, in steps: ``rounded`` is called with each projection and all of its inputs.
    """
    attention, ffn = layer.attention, layer.ffn
    normed = _each(layer.rms_norm1, tokens)
    rounded(attention, "attention", ("q_proj", "k_proj", "v_proj"), normed)
    mixed = _each(lambda x: _mix(layer, x), normed)
    rounded(attention, "attention", ("out_proj",), mixed)
    tokens = [x + attention.out_proj(y) for x, y in zip(tokens, mixed, strict=True)]
    normed = _each(layer.rms_norm2, tokens)
    rounded(ffn, "ffn", ("gate_proj", "up_proj"), normed)
    inner = _each(lambda x: kernels.gated(ffn.activation, ffn.gate_proj(x), ffn.up_proj(x)), normed)
    rounded(ffn, "ffn", ("down_proj",), inner)
    tokens = [x + ffn.down_proj(y) for x, y in zip(tokens, inner, strict=True)]
    mx.eval(tokens)
    return tokens


def _each(function: Callable[[mx.array], mx.array], inputs: list[mx.array]) -> list[mx.array]:
    """A function of every picture, evaluated one by one."""
    outputs = []
    for x in inputs:
        outputs.append(function(x))
        mx.eval(outputs[-1])
    return outputs


def _mix(layer: EncoderLayer, x: mx.array) -> mx.array:
    """What the output projection of a layer's attention gets: (1, N, D)."""
    attention = layer.attention
    q, k, v = (
        split_heads(project(x), attention.num_heads)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return merge_heads(kernels.attention(q, k, v))
