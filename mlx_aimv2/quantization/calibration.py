"""Calibration: quantize the vision encoder with images, layer after layer, each weight for its real inputs.

The images run through the layers that are quantized already, so that a layer also makes up for the loss before it.
In memory at a time: the tokens of all images, one layer in float32, and a few square matrices as wide as the widest
input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..config import AnyConfig
from ..errors import Aimv2Error, InputError, NonFiniteError
from ..events import OnEvent, Progress, Skipped
from ..models.layers import EncoderLayer
from ..models.vision import VisionEmbeddings
from ..processing.decode import ImageInput
from ..processing.processor import Processor
from .gptq import Inputs, Packed, quantize
from .recipes import LAYERS, vision_prefix
from .scheme import Scheme, unpacked

IMAGES = 32  # enough: each token is a sample
MAX_PATCHES = 1024  # of an image of native resolution: the tokens of all images are in memory
Tensors = Mapping[str, mx.array]
Rounding = Callable[[nn.Module, str, Sequence[str], list[mx.array]], None]
"""A function of a module, its path, the names of projections in it, and the inputs they share."""


@dataclass(frozen=True)
class Calibration:
    """The inputs of a calibration.

    Attributes:
        config: the model.
        schemes: how to quantize each weight, by its canonical name, in affine mode; other weights stay.
        dtype: of scales and biases.
        pixels: images, each (1, H, W, 3), normalized.
    """

    config: AnyConfig
    schemes: Mapping[str, Scheme]
    dtype: mx.Dtype
    pixels: Sequence[mx.array]


def read_images(images: Sequence[ImageInput], processor: Processor, on_event: OnEvent) -> list[mx.array]:
    """Prepare up to `IMAGES` images, spread evenly over ``images``, each (1, H, W, 3); report broken ones.

    Raises:
        InputError: no image can be read.
    """
    pixels: list[mx.array] = []
    count = min(len(images), IMAGES)
    for index in (number * len(images) // count for number in range(count)):
        try:
            pixels.append(processor(images=[images[index]])["pixel_values"])
        except Aimv2Error as error:
            on_event(Skipped.of(str(images[index]), error))
    if not pixels:
        raise InputError("none of the images to calibrate with can be read")
    return pixels


def calibrated_layers(
    calibration: Calibration, tensors: Tensors, on_event: OnEvent
) -> Iterator[dict[str, Packed]]:
    """Quantize one layer after the other. The embeddings are computed in the call, each layer in its iteration.

    Args:
        calibration: model, schemes and images.
        tensors: plain canonical tensors; those of a layer are read in its iteration.
        on_event: called with progress.

    Returns:
        For each layer, packed weight, scales and biases by the name of the weight.

    Raises:
        NonFiniteError: a weight or an activation holds NaN or infinity.
    """
    start = vision_prefix(calibration.config)
    config = calibration.config
    vision = config.vision
    embeddings = VisionEmbeddings(vision)
    embeddings.load_weights(_below(tensors, f"{start}embeddings."))
    tokens = _each(embeddings, calibration.pixels)

    def layers(tokens: list[mx.array]) -> Iterator[dict[str, Packed]]:
        for number in range(vision.num_hidden_layers):
            layer, path = EncoderLayer(vision), f"{start}{LAYERS}{number}."
            layer.load_weights(_below(tensors, path))
            layer.eval()
            packed: dict[str, Packed] = {}
            tokens = through_layer(layer, tokens, _quantizer(calibration, path, packed))
            mx.clear_cache()
            on_event(Progress("calibrating", number + 1, vision.num_hidden_layers, unit="layers"))
            yield packed

    return layers(tokens)


def _quantizer(calibration: Calibration, start: str, packed: dict[str, Packed]) -> Rounding:
    """A function that quantizes projections into ``packed``, and puts the rounded weights in the layer."""

    def round_weights(module: nn.Module, path: str, names: Sequence[str], inputs: list[mx.array]) -> None:
        chosen = {name: f"{start}{path}.{name}.weight" for name in names}
        chosen = {name: full for name, full in chosen.items() if full in calibration.schemes}
        if not chosen:
            return
        statistics = _statistics(inputs, f"{start}{path}")
        for name, full in chosen.items():
            scheme, weight = calibration.schemes[full], np.array(module[name].weight)
            if not np.isfinite(weight).all():
                raise NonFiniteError(f"{full} holds NaN or infinity: the checkpoint is damaged")
            packed[full] = quantize(weight, statistics, scheme, calibration.dtype)
            module[name].weight = unpacked(*packed[full], scheme)

    return round_weights


def _statistics(inputs: list[mx.array], where: str) -> Inputs:
    """The statistics of the inputs of projections, over the tokens of all images."""
    total = mx.zeros((inputs[0].shape[-1],) * 2)  # (D, D), the sum of x x^T
    for x in inputs:
        flat = x.reshape(-1, x.shape[-1])  # (N, D)
        total = total + flat.T @ flat
        mx.eval(total)
    gram = np.array(total)
    try:
        if np.isfinite(gram).all():
            return Inputs.of(gram)
    except np.linalg.LinAlgError:  # only damaged weights are so ill-conditioned
        pass
    raise NonFiniteError(f"{where}: the images to calibrate with give NaN or infinity there; is it damaged?")


def _below(tensors: Tensors, start: str) -> list[tuple[str, mx.array]]:
    """The tensors whose names begin with ``start``, without it, in float32."""
    return [
        (name[len(start) :], x.astype(mx.float32)) for name, x in tensors.items() if name.startswith(start)
    ]


def through_layer(layer: EncoderLayer, tokens: list[mx.array], round_weights: Rounding) -> list[mx.array]:
    """Run a layer over the tokens of images, each (1, N, D), and round every projection before its use.

    The same as calling ``layer``, in steps: ``round_weights`` gets projections and all of their inputs.
    """
    attention, ffn = layer.attention, layer.ffn
    inputs = _each(layer.rms_norm1, tokens)
    round_weights(attention, "attention", ("q_proj", "k_proj", "v_proj"), inputs)
    inputs = _each(lambda x: _attend(layer, x), inputs)
    round_weights(attention, "attention", ("out_proj",), inputs)
    tokens = [x + attention.out_proj(y) for x, y in zip(tokens, inputs, strict=True)]
    inputs = _each(layer.rms_norm2, tokens)
    round_weights(ffn, "ffn", ("gate_proj", "up_proj"), inputs)
    inputs = _each(ffn.inner, inputs)
    round_weights(ffn, "ffn", ("down_proj",), inputs)
    tokens = [x + ffn.down_proj(y) for x, y in zip(tokens, inputs, strict=True)]
    mx.eval(tokens)
    return tokens


def _each(function: Callable[[mx.array], mx.array], inputs: Sequence[mx.array]) -> list[mx.array]:
    """Apply a function to each input, and evaluate it before the next."""
    outputs = []
    for x in inputs:
        outputs.append(function(x))
        mx.eval(outputs[-1])
    return outputs


def _attend(layer: EncoderLayer, x: mx.array) -> mx.array:
    """The input of the output projection of a layer's attention, (1, N, D)."""
    return layer.attention.mix(*layer.attention.project(x))
