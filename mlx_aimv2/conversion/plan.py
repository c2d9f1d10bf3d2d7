"""The plan of a conversion: what becomes of each tensor. It needs only the headers of the source.

`--dry-run` prints the plan, and `convert` carries it out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import mlx.core as mx
from mlx.utils import tree_flatten

from ..checkpoints.checkpoint import KEPT_FLOAT32
from ..checkpoints.matching import check_fit, fold_names
from ..checkpoints.shards import Entry
from ..errors import InputError
from ..events import Notice, OnEvent, warn
from ..loading import Checkpoint, at_resolution, inspect, make_model
from ..quantization.recipes import KEPT, kept_reason, layer_number, mixed_bits, vision_prefix
from ..quantization.scheme import Quantization, Scheme, dequantize
from .options import ConvertOptions


@dataclass(frozen=True)
class Planned:
    """One canonical tensor: how it is written, and why it is not quantized, if it is not."""

    name: str
    shape: tuple[int, ...]
    dtype: mx.Dtype
    scheme: Scheme | None = None
    reason: str | None = None

    @classmethod
    def of(cls, name: str, x: mx.array, dtype: mx.Dtype, quantization: Quantization | None) -> Planned:
        """Plan one tensor from its name, shape and dtype.

        Args:
            name: its canonical name.
            x: the plain tensor; its values are not read.
            dtype: of floats that are not kept in float32.
            quantization: of the result; None for plain weights.
        """
        shape = tuple(x.shape)
        if name.endswith(KEPT_FLOAT32):
            dtype = mx.float32
        if not mx.issubdtype(x.dtype, mx.floating):
            dtype = x.dtype
        if quantization is None:
            return cls(name, shape, dtype)
        scheme = quantization.scheme(name.removesuffix(".weight"))
        reason = kept_reason(name, shape, scheme)
        return cls(name, shape, dtype, None if reason else scheme, reason)

    @property
    def entries(self) -> list[Entry]:
        """The tensors in the file: one, or weight, scales and biases."""
        if self.scheme is None:
            return [Entry(self.name, self.dtype, self.shape)]
        path = self.name.removesuffix(".weight")
        packed = mx.quantize(mx.zeros(self.shape, self.dtype), **self.scheme.arguments())  # lazy: only shapes
        tensors = zip(("weight", "scales", "biases"), packed, strict=False)
        return [Entry(f"{path}.{kind}", x.dtype, tuple(x.shape)) for kind, x in tensors]


@dataclass(frozen=True)
class Conversion:
    """The plan of a conversion.

    Attributes:
        checkpoint: the source.
        planned: what becomes of each of its tensors.
        quantization: of the result.
        dtype: of the result.
        parameters: weights of the model.
        packed: whether the source's quantized weights stay as they are.
        calibrated: whether the vision encoder is quantized with images.
        recipe: the name of the mixed bits; None without a recipe.
    """

    checkpoint: Checkpoint
    planned: list[Planned]
    quantization: Quantization | None
    dtype: mx.Dtype
    parameters: int
    packed: bool = False
    calibrated: bool = False
    recipe: str | None = None

    def open(self) -> dict[str, mx.array]:
        """The source's tensors by canonical name, lazy; quantized ones unpacked unless they stay as they are.

        Raises:
            DamagedFileError: a file cannot be opened, or has changed since it was looked at.
            OutputError: there is no room to unpack an .npz or .msgpack file.
        """
        tensors, quantization = self.checkpoint.open(), self.checkpoint.quantization
        if quantization is None or self.packed:
            return tensors
        return dequantize(tensors, quantization, self.dtype)

    @cached_property
    def entries(self) -> list[Entry]:
        """Every tensor of the result."""
        return [entry for tensor in self.planned for entry in tensor.entries]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors of the result."""
        return sum(entry.nbytes for entry in self.entries)

    @property
    def bits_per_weight(self) -> float:
        """Bits of the result for each weight of the model, scales included."""
        return 8 * self.nbytes / self.parameters

    @property
    def quantization_name(self) -> str | None:
        """Such as `4-bit affine, groups of 64, calibrated`; None for plain weights."""
        if self.quantization is None:
            return None
        recipe = f", recipe {self.recipe}" if self.recipe else ""
        return f"{self.quantization}{recipe}{', calibrated' if self.calibrated else ''}"

    @property
    def unpacked_from(self) -> str | None:
        """How the source was quantized, if its weights are unpacked."""
        quantization = self.checkpoint.quantization
        return None if quantization is None or self.packed else str(quantization)

    @property
    def kept(self) -> dict[str, list[str]]:
        """The names of the tensors that are not quantized while the rest is, by reason."""
        reasons: dict[str, list[str]] = {}
        for tensor in self.planned:
            if tensor.reason is not None:
                reasons.setdefault(tensor.reason, []).append(tensor.name)
        return reasons

    @property
    def unquantizable(self) -> str:
        """The names and reasons of matrices whose shape cannot be quantized; empty if there are none."""
        usual = {reason for _, reason in KEPT}
        names = [(names, reason) for reason, names in self.kept.items() if reason not in usual]
        return "; ".join(f"{fold_names(names)} ({reason})" for names, reason in names)


def plan_conversion(
    hf_path: str | os.PathLike[str],
    options: ConvertOptions,
    revision: str | None = None,
    on_event: OnEvent = warn,
    *,
    may_stay_packed: bool = True,
) -> Conversion:
    """Plan a conversion from the headers of its source.

    Quantized weights stay packed if they may, unless ``options`` dequantize them or quantize them again.

    Raises:
        CheckpointError: the source is no checkpoint, is damaged, or does not fit its configuration.
        HubError: the Hub does not deliver the source.
        InputError: the source does not allow an option.
    """
    if options.calibrate and not (options.scheme or options.quant_predicate):
        raise InputError("--calibrate is a way to quantize: ask for that too, with -q (in Python, a scheme)")
    checkpoint = at_resolution(inspect(hf_path, revision, options.weights, on_event), options.resolution)
    dtype: mx.Dtype = getattr(mx, options.dtype) if options.dtype else checkpoint.stored_dtype
    plain, source = checkpoint.outline, checkpoint.quantization
    if source is not None:
        plain = dequantize(plain, source, dtype)
    elif options.dequantize:
        raise InputError(f"{hf_path} is not quantized: there is nothing to dequantize")
    expected = dict(tree_flatten(make_model(checkpoint.config).parameters()))
    check_fit(expected, plain, checkpoint.unknown, str(checkpoint.resolved.folder))
    quantization = Quantization(options.scheme) if options.scheme else None
    if options.quant_predicate:
        group_size = options.scheme.group_size if options.scheme else 64
        quantization = mixed_bits(options.quant_predicate, plain, group_size)
    packed = may_stay_packed and source is not None and quantization is None and not options.dequantize
    if source is not None and not packed:
        on_event(Notice(f"the source's {source} weights are unpacked first; what they have lost stays lost"))
    tensors = checkpoint.outline if packed else plain
    planned = [Planned.of(name, x, dtype, quantization) for name, x in tensors.items()]
    if options.calibrate:  # layers in order, after everything else
        tower = vision_prefix(checkpoint.config)
        planned.sort(key=lambda tensor: layer_number(tensor.name, tower))
    return Conversion(
        checkpoint=checkpoint,
        planned=planned,
        quantization=source if packed else quantization,
        dtype=dtype,
        parameters=sum(x.size for x in expected.values()),
        packed=packed,
        calibrated=bool(options.calibrate),
        recipe=options.quant_predicate,
    )
