"""Quantizing the vision encoder with images: layer after layer, each weight for what it really multiplies.

The images run through the layers that are quantized already, so that a layer also makes up for what was lost
before it. What is held at a time: the tokens of all images, one layer in float32, and one matrix as large as the
widest input on a side, several times over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..config import AnyConfig
from ..conversion.plan import LAYERS, vision_prefix
from ..errors import Aimv2Error, InputError, NonFiniteError
from ..events import OnEvent, Progress, Skipped
from ..models import kernels
from ..models.layers import EncoderLayer, merge_heads, split_heads
from ..models.vision import VisionEmbeddings
from ..processing.build import build_processor
from ..processing.decode import ImageInput
from ..processing.image import NativeOptions
from ..processing.processor import Processor
from .gptq import Inputs, Packed, quantize
from .scheme import Scheme, unpacked

IMAGES = 32  # enough: the tokens of each count as samples
MAX_PATCHES = 1024  # of an image of native resolution: all images' tokens are held at once
Tensors = Mapping[str, mx.array]
Rounding = Callable[[nn.Module, str, Sequence[str], list[mx.array]], None]
"""Called with a module, its path, the names of projections in it, and the inputs they share."""


@dataclass(frozen=True)
class Calibration:
    """What to quantize a vision encoder with.

    Attributes:
        config: the model.
        schemes: how to quantize each weight, by its canonical name, in affine mode; the others stay.
        dtype: of scales and biases.
        pixels: images, each (1, H, W, 3), normalized.
    """

    config: AnyConfig
    schemes: Mapping[str, Scheme]
    dtype: mx.Dtype
    pixels: Sequence[mx.array]


def prepare_images(
    images: Sequence[ImageInput],
    folder: Path,
    config: AnyConfig,
    on_event: OnEvent,
    resampled: bool = False,
) -> list[mx.array]:
    """Images as the checkpoint in ``folder`` takes them, each (1, H, W, 3).

    Args:
        images: of any size.
        folder: the checkpoint.
        config: of the model.
        on_event: called with progress, and what was skipped.
        resampled: whether the size that ``config`` says is another than the folder's.

    Raises:
        InputError: none can be read.
        ConfigError: the checkpoint's preprocessor is damaged.
        TokenizerError: an image-text pair without usable tokenizer files.
    """
    native = NativeOptions(max_patches=MAX_PATCHES)
    return read_images(images, build_processor(folder, config, native=native, resized=resampled), on_event)


def read_images(images: Sequence[ImageInput], processor: Processor, on_event: OnEvent) -> list[mx.array]:
    """Up to `IMAGES` images, spread evenly over ``images``, each (1, H, W, 3); broken ones are reported.

    Raises:
        InputError: none can be read.
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
    """Quantize one layer after the other; the embeddings are computed at once, the layers when asked for.

    Args:
        calibration: what with.
        tensors: plain canonical tensors; those of a layer are read when its turn comes.
        on_event: called with progress.

    Returns:
        For each layer, packed weight, scales and biases by the name of the weight.

    Raises:
        NonFiniteError: a weight, or what the images give, holds NaN or infinity.
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
            tokens = through_layer(layer, tokens, _rounding(calibration, path, packed))
            mx.clear_cache()
            on_event(Progress("calibrating", number + 1, vision.num_hidden_layers, unit="layers"))
            yield packed

    return layers(tokens)


def _rounding(calibration: Calibration, start: str, packed: dict[str, Packed]) -> Rounding:
    """Quantizes projections into ``packed``; the layer goes on with what is left of them."""

    def rounded(module: nn.Module, path: str, names: Sequence[str], inputs: list[mx.array]) -> None:
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

    return rounded


def _statistics(inputs: list[mx.array], where: str) -> Inputs:
    """What projections multiply, over the tokens of all images.

    Raises:
        NonFiniteError: it holds NaN or infinity, or is too large to compute with.
    """
    total = mx.zeros((inputs[0].shape[-1],) * 2)  # (D, D), the sum of x x^T
    for x in inputs:
        flat = x.reshape(-1, x.shape[-1])  # (N, D)
        total = total + flat.T @ flat
        mx.eval(total)
    gram = np.array(total)
    try:
        if np.isfinite(gram).all():
            return Inputs.of(gram)
    except np.linalg.LinAlgError:  # as ill-conditioned as only damaged weights make it
        pass
    raise NonFiniteError(f"{where}: the images to calibrate with give NaN or infinity there; is it damaged?")


def _below(tensors: Tensors, start: str) -> list[tuple[str, mx.array]]:
    """The tensors below a name, in float32, without it."""
    return [
        (name[len(start) :], x.astype(mx.float32)) for name, x in tensors.items() if name.startswith(start)
    ]


def through_layer(layer: EncoderLayer, tokens: list[mx.array], rounded: Rounding) -> list[mx.array]:
    """A layer over images' tokens, each (1, N, D), where every projection is rounded before it is used.

    The same as calling ``layer``, in steps: ``rounded`` is called with projections and all of their inputs.
    """
    attention, ffn = layer.attention, layer.ffn
    inputs = _each(layer.rms_norm1, tokens)
    rounded(attention, "attention", ("q_proj", "k_proj", "v_proj"), inputs)
    inputs = _each(lambda x: _mix(layer, x), inputs)
    rounded(attention, "attention", ("out_proj",), inputs)
    tokens = [x + attention.out_proj(y) for x, y in zip(tokens, inputs, strict=True)]
    inputs = _each(layer.rms_norm2, tokens)
    rounded(ffn, "ffn", ("gate_proj", "up_proj"), inputs)
    inputs = _each(lambda x: kernels.gated(ffn.activation, ffn.gate_proj(x), ffn.up_proj(x)), inputs)
    rounded(ffn, "ffn", ("down_proj",), inputs)
    tokens = [x + ffn.down_proj(y) for x, y in zip(tokens, inputs, strict=True)]
    mx.eval(tokens)
    return tokens


def _each(function: Callable[[mx.array], mx.array], inputs: Sequence[mx.array]) -> list[mx.array]:
    """A function of every image, evaluated one by one."""
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
