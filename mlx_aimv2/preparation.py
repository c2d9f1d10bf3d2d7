"""Working a conversion out, from the headers of its source alone: what `--dry-run` shows and `convert` does."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass

import mlx.core as mx
from mlx.utils import tree_flatten

from .checkpoints.fitting import check_fit
from .checkpoints.quantize import Quantization, Scheme, dequantize
from .checkpoints.shards import Entry
from .errors import InputError
from .events import Notice, OnEvent, ignore
from .loading import Checkpoint, inspect, make_model
from .models.backend import DTYPES
from .planning import Planned, by_layer, mixed, plan, vision_prefix

FORMATS = ("safetensors", "npz")
MAX_SHARD_BYTES = 5 * 10**9


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    Attributes:
        dtype: float32, float16 or bfloat16; None for what most of the source's weights are stored in. Position
            tables and the logit scale stay in float32.
        scheme: how to quantize; None for not at all.
        quant_predicate: a recipe of mlx-lm (`mixed_4_6` …) in place of ``scheme``.
        dequantize: unpack a quantized source.
        max_shard_bytes: data in one weight file.
        format: of the weight files, "safetensors" or "npz" (one file; as older MLX examples have it).
        weights: the name of one weight file of the source, where it holds several.
        calibrate: pictures with which the vision encoder is quantized, in place of plain rounding.
        report: run source and result on pictures and compare them, for the model card.
        report_pictures: those pictures; none for built-in drawings.
        card_name: what the model card calls the result; None for the folder's name.
    """

    dtype: str | None = None
    scheme: Scheme | None = None
    quant_predicate: str | None = None
    dequantize: bool = False
    max_shard_bytes: int = MAX_SHARD_BYTES
    format: str = "safetensors"
    weights: str | None = None
    calibrate: tuple[str, ...] = ()
    report: bool = False
    report_pictures: tuple[str, ...] = ()
    card_name: str | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            InputError: an unknown dtype or format, quantizing and dequantizing at once, calibrating what is not
                quantized or cannot be, or shards of nothing.
        """
        if self.dtype is not None and self.dtype not in DTYPES:
            raise InputError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        if self.dequantize and (self.scheme or self.quant_predicate):
            raise InputError("quantize and dequantize exclude each other: give one of them")
        if self.format not in FORMATS:
            raise InputError(f"format {self.format!r} is not one of {', '.join(FORMATS)}")
        if self.calibrate and not (self.scheme or self.quant_predicate):
            raise InputError("calibration is a way to quantize: ask for that too, with -q")
        if self.calibrate and self.scheme and self.scheme.mode != "affine":
            raise InputError(f"calibration is for affine quantization, not for {self.scheme.mode}")
        if self.quant_predicate and self.scheme and self.scheme.mode != "affine":
            raise InputError(
                f"the recipe {self.quant_predicate} is for affine quantization, not for {self.scheme.mode}"
            )
        if self.max_shard_bytes < 1:
            raise InputError(f"a shard must hold at least 1 byte, not {self.max_shard_bytes}")


@dataclass(frozen=True)
class Conversion:
    """A conversion that has been worked out and not begun: what `--dry-run` shows.

    Attributes:
        checkpoint: the source.
        tensors: its plain canonical tensors, lazy.
        planned: what becomes of each.
        quantization: of the result.
        dtype: of the result.
        calibrated: whether the vision encoder is quantized with pictures.
    """

    checkpoint: Checkpoint
    tensors: dict[str, mx.array]
    planned: list[Planned]
    quantization: Quantization | None
    dtype: str
    calibrated: bool = False

    @property
    def entries(self) -> list[Entry]:
        """Every tensor of the result."""
        return [entry for one in self.planned for entry in one.entries]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors of the result."""
        return sum(entry.nbytes for entry in self.entries)

    @property
    def bits_per_weight(self) -> float:
        """Bits of the result for each weight of the model, scales included."""
        return 8 * self.nbytes / self.parameters

    @property
    def parameters(self) -> int:
        """Weights of the model."""
        return sum(math.prod(one.shape) for one in self.planned)

    @property
    def quantization_words(self) -> str | None:
        """Such as `4-bit affine, groups of 64, calibrated`; None for plain weights."""
        if self.quantization is None:
            return None
        return f"{self.quantization}, calibrated" if self.calibrated else str(self.quantization)

    @property
    def kept(self) -> dict[str, int]:
        """How many tensors are not quantized although that was asked for, by the reason why."""
        return dict(Counter(one.reason for one in self.planned if one.reason is not None))


def prepare(
    hf_path: str | os.PathLike[str],
    options: ConvertOptions,
    revision: str | None = None,
    on_event: OnEvent = ignore,
) -> Conversion:
    """Work a conversion out from the headers of its source.

    Raises:
        CheckpointError: the source is no checkpoint, is damaged, or does not fit its configuration.
        HubError: the source cannot be had from the Hub.
        InputError: an option that the source does not allow.
    """
    checkpoint = inspect(hf_path, revision, options.weights, on_event)
    dtype = options.dtype or stored_dtype(checkpoint)
    if options.dequantize and checkpoint.quantization is None:
        raise InputError(f"{hf_path} is not quantized: there is nothing to dequantize")
    tensors = checkpoint.tensors
    if checkpoint.quantization is not None:
        tensors = dequantize(tensors, checkpoint.quantization, getattr(mx, dtype))
        on_event(Notice(f"the source's {checkpoint.quantization} weights are unpacked first"))
    expected = dict(tree_flatten(make_model(checkpoint.config).parameters()))
    check_fit(expected, tensors, checkpoint.unknown, str(checkpoint.resolved.folder))
    quantization = Quantization(options.scheme) if options.scheme else None
    if options.quant_predicate:
        group_size = options.scheme.group_size if options.scheme else 64
        quantization = mixed(options.quant_predicate, tensors, group_size)
    planned = plan(tensors, getattr(mx, dtype), quantization)
    if options.calibrate:
        planned = by_layer(planned, vision_prefix(checkpoint.config))
    return Conversion(checkpoint, tensors, planned, quantization, dtype, bool(options.calibrate))


def stored_dtype(checkpoint: Checkpoint) -> str:
    """What most bytes of a checkpoint's plain weights (or scales) are stored in."""
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    sizes: dict[str, int] = {}
    for info in checkpoint.header.tensors.values():
        if info.dtype in names:
            sizes[names[info.dtype]] = sizes.get(names[info.dtype], 0) + info.nbytes
    return max(sizes, key=lambda name: sizes[name], default="float32")
