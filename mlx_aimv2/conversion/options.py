"""Working a conversion out, from the headers of its source alone: what `--dry-run` shows and `convert` does."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property

import mlx.core as mx
from mlx.utils import tree_flatten

from ..backend.device import DTYPES
from ..checkpoints.matching import check_fit, fold_names
from ..checkpoints.shards import Entry
from ..errors import InputError
from ..events import Notice, OnEvent, ignore
from ..loading import Checkpoint, LoadOptions, at_resolution, inspect, make_model
from ..quantization.scheme import Quantization, Scheme, dequantize, make_scheme
from .plan import KEPT, Planned, by_layer, mixed, plan, vision_prefix

FORMATS = ("safetensors", "npz")
MAX_SHARD_BYTES = 5 * 10**9


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    Attributes:
        dtype: float32, float16 or bfloat16; None for what most of the source's weights are stored in. Position
            tables and the logit scale stay in float32.
        scheme: how to quantize; None for not at all.
        quant_predicate: a recipe of mlx-lm (`mixed_4_6` …), which says the bits in place of ``scheme``; either asks
            for quantization.
        dequantize: unpack a quantized source.
        max_shard_bytes: data in one weight file.
        format: of the weight files, "safetensors" or "npz" (one file; as older MLX examples have it).
        weights: the name of one weight file of the source, where it holds several.
        interpolate_positions: resample the position table for another size of images; see `LoadOptions`.
        image_size: pixels on a side of those images; None for what the source's settings make.
        calibrate: images with which the vision encoder is quantized, in place of plain rounding.
        report: run source and result on images and compare them, for the model card.
        report_images: those images; none for built-in drawings.
        exclude: patterns of files and folders that are no such images.
        card_name: what the model card calls the result; None for the folder's name.
        force: replace a checkpoint that is there.
    """

    dtype: str | None = None
    scheme: Scheme | None = None
    quant_predicate: str | None = None
    dequantize: bool = False
    max_shard_bytes: int = MAX_SHARD_BYTES
    format: str = "safetensors"
    weights: str | None = None
    interpolate_positions: bool = False
    image_size: int | None = None
    calibrate: tuple[str, ...] = ()
    report: bool = False
    report_images: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    card_name: str | None = None
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            InputError: an unknown dtype or format, quantizing and dequantizing at once, calibrating another mode
                than affine, or shards of nothing.
        """
        if self.dtype is not None and self.dtype not in DTYPES:
            raise InputError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        if self.dequantize and (self.scheme or self.quant_predicate):
            raise InputError("quantize and dequantize exclude each other: give one of them")
        if self.format not in FORMATS:
            raise InputError(f"format {self.format!r} is not one of {', '.join(FORMATS)}")
        if self.calibrate and self.scheme and self.scheme.mode != "affine":
            raise InputError(f"calibration is for affine quantization, not for {self.scheme.mode}")
        if self.quant_predicate and self.scheme and self.scheme.mode != "affine":
            raise InputError(
                f"the recipe {self.quant_predicate} is for affine quantization, not for {self.scheme.mode}"
            )
        if self.max_shard_bytes < 1:
            raise InputError(f"a shard must hold at least 1 byte, not {self.max_shard_bytes}")

    @classmethod
    def from_mlx_lm(  # its arguments are mlx-lm's, one by one
        cls,
        options: ConvertOptions | None = None,
        *,
        dtype: str | None = None,
        quantize: bool = False,
        q_bits: int | None = None,
        q_group_size: int | None = None,
        q_mode: str | None = None,
        quant_predicate: str | None = None,
        dequantize: bool = False,
    ) -> ConvertOptions:
        """Options under the names that mlx-lm gives them; an argument that is left out keeps what ``options`` say.

        Args:
            options: everything that mlx-lm has no argument for.
            dtype: float32, float16 or bfloat16.
            quantize: quantize the layers' weights; without it, the four arguments that follow are refused.
            q_bits: bits of a quantized weight; None for the mode's own.
            q_group_size: weights that share a scale; None for the mode's own.
            q_mode: affine (the default), mxfp4, nvfp4 or mxfp8.
            quant_predicate: a recipe of mixed bits, such as mixed_4_6.
            dequantize: unpack a quantized source.

        Raises:
            InputError: an argument says how to quantize and ``quantize`` is not set, two contradict each other, or
                MLX has no kernel for the scheme.
        """
        options = options or cls()
        details = {"q_bits": q_bits, "q_group_size": q_group_size, "q_mode": q_mode}
        flags = [
            name
            for name, value in (details | {"quant_predicate": quant_predicate}).items()
            if value is not None
        ]
        if options.calibrate and not (options.scheme or options.quant_predicate):
            flags.append("calibrate")
        if flags and not quantize:
            names = " and ".join(f"--{name.replace('_', '-')}" for name in flags)
            raise InputError(
                f"{names} {'says' if len(flags) == 1 else 'say'} how to quantize, and nothing is quantized without -q"
                f" (in Python, quantize=True): add it, or leave {names} out"
            )
        if quant_predicate is not None and q_bits is not None:
            raise InputError(
                f"the recipe {quant_predicate} says the bits itself: leave q_bits (--q-bits) out"
            )
        return replace(
            options,
            dtype=dtype or options.dtype,
            scheme=make_scheme(q_mode or "affine", q_bits, q_group_size) if quantize else options.scheme,
            quant_predicate=quant_predicate or options.quant_predicate,
            dequantize=dequantize or options.dequantize,
        )


@dataclass(frozen=True)
class Conversion:
    """A conversion that has been worked out and not begun: what `--dry-run` shows.

    Attributes:
        checkpoint: the source.
        planned: what becomes of each of its tensors.
        quantization: of the result.
        dtype: of the result.
        parameters: weights of the model.
        packed: whether the source's quantized weights stay as they are.
        calibrated: whether the vision encoder is quantized with images.
        recipe: the name of the mixed bits, if those were asked for.
    """

    checkpoint: Checkpoint
    planned: list[Planned]
    quantization: Quantization | None
    dtype: str
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
        return dequantize(tensors, quantization, getattr(mx, self.dtype))

    @cached_property
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
    def quantization_words(self) -> str | None:
        """Such as `4-bit affine, groups of 64, calibrated`; None for plain weights."""
        if self.quantization is None:
            return None
        recipe = f", recipe {self.recipe}" if self.recipe else ""
        return f"{self.quantization}{recipe}{', calibrated' if self.calibrated else ''}"

    @property
    def unpacked_from(self) -> str | None:
        """How the source was quantized, where its weights are unpacked; its loss stays in them."""
        quantization = self.checkpoint.quantization
        return None if quantization is None or self.packed else str(quantization)

    @property
    def kept(self) -> dict[str, list[str]]:
        """The tensors that stay as they are when the rest is quantized, by the reason why."""
        reasons: dict[str, list[str]] = {}
        for one in self.planned:
            if one.reason is not None:
                reasons.setdefault(one.reason, []).append(one.name)
        return reasons

    @property
    def odd(self) -> str:
        """Matrices that would be quantized if their shape allowed it, by name and reason; empty where none is."""
        usual = {reason for _, reason in KEPT}
        odd = [(names, reason) for reason, names in self.kept.items() if reason not in usual]
        return "; ".join(f"{fold_names(names)} ({reason})" for names, reason in odd)


def prepare(
    hf_path: str | os.PathLike[str],
    options: ConvertOptions,
    revision: str | None = None,
    on_event: OnEvent = ignore,
    *,
    may_stay_packed: bool = True,
) -> Conversion:
    """Work a conversion out from the headers of its source.

    Quantized weights stay packed as they are where they may, unless they are to be dequantized or quantized anew.

    Raises:
        CheckpointError: the source is no checkpoint, is damaged, or does not fit its configuration.
        HubError: the source cannot be had from the Hub.
        InputError: an option that the source does not allow.
    """
    if options.calibrate and not (options.scheme or options.quant_predicate):
        raise InputError("--calibrate is a way to quantize: ask for that too, with -q (in Python, a scheme)")
    resolution = LoadOptions(
        interpolate_positions=options.interpolate_positions, image_size=options.image_size
    )
    checkpoint = at_resolution(inspect(hf_path, revision, options.weights, on_event), resolution)
    dtype, before = options.dtype or checkpoint.stored_dtype, checkpoint.quantization
    if options.dequantize and before is None:
        raise InputError(f"{hf_path} is not quantized: there is nothing to dequantize")
    plain = checkpoint.outline
    if before is not None:
        plain = dequantize(plain, before, getattr(mx, dtype))
    expected = dict(tree_flatten(make_model(checkpoint.config).parameters()))
    check_fit(expected, plain, checkpoint.unknown, str(checkpoint.resolved.folder))
    quantization = Quantization(options.scheme) if options.scheme else None
    if options.quant_predicate:
        group_size = options.scheme.group_size if options.scheme else 64
        quantization = mixed(options.quant_predicate, plain, group_size)
    packed = may_stay_packed and before is not None and quantization is None and not options.dequantize
    if before is not None and not packed:
        on_event(Notice(f"the source's {before} weights are unpacked first; what they have lost stays lost"))
    planned = plan(checkpoint.outline if packed else plain, getattr(mx, dtype), quantization)
    if options.calibrate:
        planned = by_layer(planned, vision_prefix(checkpoint.config))
    return Conversion(
        checkpoint=checkpoint,
        planned=planned,
        quantization=before if packed else quantization,
        dtype=dtype,
        parameters=sum(x.size for x in expected.values()),
        packed=packed,
        calibrated=bool(options.calibrate),
        recipe=options.quant_predicate,
    )
