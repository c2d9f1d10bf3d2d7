"""`LoadOptions`: how to load a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

from ..backend.device import DTYPES
from ..options.fields import at_least, like, one_of, option
from ..processing.options import DecodeOptions, NativeOptions

COMPUTING = "Computing"
MODEL_HELP = (
    "A checkpoint folder, a repository, or a short name (see `mlx-aimv2 models`); demo needs no download."
)


@dataclass(frozen=True)
class FileOptions:
    """The files of a checkpoint."""

    revision: str | None = option(None, "Branch, tag or commit of the repository.")
    weights: str | None = option(None, "The weight file to read, if the checkpoint has several.")


@dataclass(frozen=True)
class LoadOptions:
    """How to load a checkpoint.

    The positions are resampled in float32, as PyTorch's bicubic `interpolate` does without antialiasing.
    """

    dtype: str | None = option(
        None,
        "float32, float16, bfloat16, or auto: float32 on a CPU, float16 on a GPU.",
        COMPUTING,
        one_of(("auto", *DTYPES)),
    )
    keep_quantized: bool = option(
        False, "On a CPU, compute with packed weights (slower, less memory).", COMPUTING
    )
    weights: str | None = like(FileOptions, "weights")
    decode: DecodeOptions = option(DecodeOptions, "How to decode images.")
    native: NativeOptions = option(NativeOptions, "The range of patches of a native-resolution model.")
    any_base: bool = option(
        False,
        "Use the adapter with another checkpoint than it was trained on, such as a quantized copy.",
    )
    interpolate_positions: bool = option(
        False,
        "Resample the position table of a model of fixed size (bicubic) for images of another size.",
        COMPUTING,
    )
    image_size: int | None = option(
        None,
        "With --interpolate-positions: height and width, at least 1. [default: from the checkpoint's image settings]",
        COMPUTING,
        at_least(1),
        metavar="PIXELS",
    )
