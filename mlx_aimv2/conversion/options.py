"""`ConvertOptions`: the options of a conversion, also from the arguments of mlx-lm's `convert`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypedDict

from ..backend.device import DTYPES
from ..errors import InputError
from ..loading import LoadOptions
from ..quantization.scheme import Scheme, make_scheme

FORMATS = ("safetensors", "npz")
MAX_SHARD_BYTES = 5 * 10**9
DETAILS = ("--q-bits", "--q-group-size", "--q-mode", "--quant-predicate")  # of quantization


class MlxLmArguments(TypedDict, total=False):
    """The arguments of `convert` that mlx-lm has too; see `ConvertOptions.from_mlx_lm`."""

    quantize: bool
    q_bits: int | None
    q_group_size: int | None
    q_mode: str | None
    quant_predicate: str | None
    dequantize: bool


@dataclass(frozen=True)
class ConvertOptions:
    """Options of a conversion.

    Attributes:
        dtype: float32, float16 or bfloat16; None for the dtype of most of the source's weights. Position tables and
            the logit scale stay in float32.
        scheme: how to quantize; None for plain weights.
        quant_predicate: a recipe of mlx-lm (`mixed_4_6` …), which sets the bits in place of ``scheme``; either one
            quantizes.
        dequantize: unpack a quantized source.
        max_shard_bytes: data in one weight file.
        format: of the weight files, "safetensors" or "npz" (one file; as older MLX examples have it).
        weights: the name of one weight file of the source, if it has several.
        interpolate_positions: resample the position table for another size of images; see `LoadOptions`.
        image_size: pixels on a side of those images; None for the size in the source's settings.
        calibrate: images to quantize the vision encoder with, in place of plain rounding.
        report: run source and result on images and compare them, for the model card.
        report_images: those images; empty for built-in drawings.
        exclude: patterns of files and folders to leave out of both.
        card_name: the name of the result in the model card; None for the folder's name.
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
        """Check the values.

        Raises:
            InputError: the dtype or format is unknown, quantize and dequantize are both set, the mode of calibration
                or recipe is not affine, or shards are smaller than a byte.
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

    @property
    def resolution(self) -> LoadOptions:
        """The options for the size of images."""
        return LoadOptions(interpolate_positions=self.interpolate_positions, image_size=self.image_size)

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
        details = (q_bits, q_group_size, q_mode, quant_predicate)
        flags = [flag for flag, value in zip(DETAILS, details, strict=True) if value is not None]
        if options.calibrate and not (options.scheme or options.quant_predicate):
            flags.append("--calibrate")
        if flags and not quantize:
            names = " and ".join(flags)
            raise InputError(
                f"{names} {'says' if len(flags) == 1 else 'say'} how to quantize, and nothing is quantized without -q"
                f" (in Python, quantize=True): add it, or leave {names} out"
            )
        if quant_predicate is not None and q_bits is not None:
            raise InputError(f"the recipe {quant_predicate} sets the bits: leave q_bits (--q-bits) out")
        return replace(
            options,
            dtype=options.dtype if dtype is None else dtype,
            scheme=make_scheme(q_mode or "affine", q_bits, q_group_size) if quantize else options.scheme,
            quant_predicate=options.quant_predicate if quant_predicate is None else quant_predicate,
            dequantize=dequantize or options.dequantize,
        )
