"""Options of `convert` (also from the arguments of mlx-lm's), `export` and `fuse`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict

from ..backend.device import DTYPES
from ..checkpoints.load_options import FileOptions, LoadOptions
from ..datasets.options import Reading
from ..errors import InputError
from ..options.fields import check_fields, like, one_of, option

if TYPE_CHECKING:
    from ..quantization.scheme import Scheme  # imports MLX, which the command line declares options without

FORMATS = ("safetensors", "npz")
EXPORT_FORMATS = ("transformers", "apple", "apple-mlx", "timm")
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
        dtype: position tables and the logit scale stay in float32.
        quant_predicate: sets the bits in place of ``scheme``; either of them quantizes.
        format: "npz" is one file, as older MLX examples have it.

    Raises:
        InputError: an option has an unknown value, or two contradict each other.
    """

    dtype: str | None = option(
        None, "float32, float16 or bfloat16. [default: as stored]", None, one_of(DTYPES)
    )
    scheme: Scheme | None = option(None, "How to quantize; None for plain weights.")
    quant_predicate: str | None = option(
        None, "With -q: mixed bits, mixed_2_6, mixed_3_4, mixed_3_6 or mixed_4_6."
    )
    dequantize: bool = option(
        False, "Write the plain weights of a quantized source.", flags=("-d", "--dequantize")
    )
    max_shard_bytes: int = option(MAX_SHARD_BYTES, "Most data in one weight file.")
    format: str = option(
        "safetensors", "Format of the weight files: safetensors or npz.", None, one_of(FORMATS)
    )
    weights: str | None = like(FileOptions, "weights")
    interpolate_positions: bool = like(LoadOptions, "interpolate_positions")
    image_size: int | None = like(LoadOptions, "image_size")
    calibrate: tuple[str, ...] = option(
        (),
        "With -q: quantize the vision encoder for these images (a folder, or a pattern in quotes; some dozens are"
        " used) instead of rounding. Slower, and closer to the original in 2 to 4 bits.",
        metavar="IMAGES",
    )
    report: bool = option(False, "Compare result and source, on the screen and in the model card.")
    report_images: tuple[str, ...] = option(
        (), "Images to compare them on. [default: built-in drawings]", metavar="IMAGES"
    )
    exclude: tuple[str, ...] = like(Reading, "exclude")
    card_name: str | None = option(None, "Name of the result in the model card. [default: the folder's]")
    force: bool = option(False, "Replace the old result once the new one is complete.")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.dequantize and (self.scheme or self.quant_predicate):
            raise InputError("quantize and dequantize exclude each other: give one of them")
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
        from ..quantization.scheme import make_scheme

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


@dataclass(frozen=True)
class ExportOptions:
    """Options of `export`."""

    dtype: str | None = like(ConvertOptions, "dtype")
    max_shard_bytes: int = like(ConvertOptions, "max_shard_bytes")
    weights: str | None = like(FileOptions, "weights")
    interpolate_positions: bool = like(LoadOptions, "interpolate_positions")
    image_size: int | None = like(LoadOptions, "image_size")
    any_base: bool = like(LoadOptions, "any_base")
    force: bool = like(ConvertOptions, "force")


@dataclass(frozen=True)
class FuseOptions:
    """Options of `fuse`.

    Attributes:
        dequantize: without it the weights are quantized again in the same way, which rounds.
    """

    dequantize: bool = option(
        False, "Write plain weights if the base is quantized.", flags=("-d", "--dequantize")
    )
    revision: str | None = like(FileOptions, "revision")
    weights: str | None = like(FileOptions, "weights")
    max_shard_bytes: int = like(ConvertOptions, "max_shard_bytes")
    any_base: bool = like(LoadOptions, "any_base")
    force: bool = like(ConvertOptions, "force")
