"""The options several verbs share, written once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..presets import DEFAULT_MODEL, PATCH_RANGE
from .completion import BACKGROUNDS, DECODING, DEVICES, DTYPES, checkpoints, choices

if TYPE_CHECKING:
    from ..loading import LoadOptions

READING = "Reading images"
COMPUTING = "Computing"

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A checkpoint folder, a repository, or a short name (see `mlx-aimv2 models`); demo needs no download.",
        autocompletion=checkpoints,
    ),
]
AdaptedModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A checkpoint folder, a repository, or a short name (see `mlx-aimv2 models`); demo needs no download."
        f" [default: the base of the adapter, else {DEFAULT_MODEL}]",
        autocompletion=checkpoints,
    ),
]
Labels = Annotated[
    list[str],
    typer.Option(
        "--labels",
        "-l",
        help="Labels, separated by commas, or a file of them; `id=name` names what the model cannot know.",
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the repository.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Dtype = Annotated[
    str,
    typer.Option(
        help="float32, float16, bfloat16, or auto: float32 on a CPU, float16 on a GPU.",
        autocompletion=choices(("auto", *DTYPES)),
        rich_help_panel=COMPUTING,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu or gpu. [default: what there is]",
        envvar="MLX_AIMV2_DEVICE",
        autocompletion=choices(DEVICES),
        rich_help_panel=COMPUTING,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1, help="Images computed at once. [default: what suits the device]", rich_help_panel=COMPUTING
    ),
]
Weights = Annotated[
    str | None, typer.Option(help="The weight file to read, where a checkpoint holds several.")
]
AnyBase = Annotated[
    bool,
    typer.Option(
        "--any-base",
        help="Use an adapter with another checkpoint than it was trained on, such as a quantized copy of that.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there, once the new one is complete.")]
KeepQuantized = Annotated[
    bool,
    typer.Option(
        "--keep-quantized",
        help="On a CPU, compute with packed weights (slower, less memory).",
        rich_help_panel=COMPUTING,
    ),
]
Decode = Annotated[
    str,
    typer.Option(
        help="fast: large JPEGs are decoded at a reduced size; exact: as transformers does.",
        autocompletion=choices(DECODING),
        rich_help_panel=READING,
    ),
]
Background = Annotated[
    str,
    typer.Option(
        help="Colour behind transparent images, or drop to ignore transparency as published.",
        autocompletion=choices(BACKGROUNDS),
        rich_help_panel=READING,
    ),
]
MaxMegapixels = Annotated[
    float, typer.Option(help="Refuse larger images before decoding them.", rich_help_panel=READING)
]
ColorManaged = Annotated[
    bool | None,
    typer.Option(
        "--color-managed/--no-color-managed",
        help="Convert colours of embedded profiles to sRGB. [default: with --decode fast, and in evaluate]",
        rich_help_panel=READING,
    ),
]
AllowTruncated = Annotated[
    bool,
    typer.Option(
        "--allow-truncated",
        help="Take what is there of images that are cut off, instead of skipping them.",
        rich_help_panel=READING,
    ),
]
MaxPatches = Annotated[
    int, typer.Option(help="Native resolution: shrink images of more patches.", rich_help_panel=READING)
]
MinPatches = Annotated[
    int,
    typer.Option(
        help="Native resolution: enlarge images of fewer patches; 1 leaves them.", rich_help_panel=READING
    ),
]
InterpolatePositions = Annotated[
    bool,
    typer.Option(
        "--interpolate-positions",
        help="Resample the position table of a model of fixed size (bicubic) for images of another size.",
        rich_help_panel=COMPUTING,
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PIXELS",
        help="With --interpolate-positions: that size, on a side. [default: what the checkpoint's settings make]",
        rich_help_panel=COMPUTING,
    ),
]
Exclude = Annotated[
    list[str],
    typer.Option(
        metavar="PATTERN",
        help="Leave out files and folders of this name, or path from the folder named, such as 'raw' or 'thumb_*';"
        " may be given several times.",
        rich_help_panel=READING,
    ),
]

DEFAULT = DEFAULT_MODEL
DECODE, BACKGROUND, MAX_MEGAPIXELS = "fast", "white", 200.0  # the verbs go over many images: fast
MIN_PATCHES, MAX_PATCHES = PATCH_RANGE


def load_options(
    *,
    dtype: str,
    keep_quantized: bool,
    weights: str | None,
    decode: str,
    background: str,
    max_megapixels: float,
    allow_truncated: bool,
    color_managed: bool | None,
    min_patches: int,
    max_patches: int,
    interpolate_positions: bool,
    image_size: int | None,
) -> LoadOptions:
    """The options of the command line as the library takes them."""
    from ..loading import LoadOptions
    from ..processing.decode import DecodeOptions
    from ..processing.image import NativeOptions

    return LoadOptions(
        dtype=dtype,
        keep_quantized=keep_quantized,
        weights=weights,
        decode=DecodeOptions(
            decode=decode,  # type: ignore[arg-type]
            background=background,
            max_megapixels=max_megapixels,
            allow_truncated=allow_truncated,
            color_managed=color_managed,
        ),
        native=NativeOptions(
            # who asks for few at most need not lower the least by hand too
            min_patches=min(min_patches, max_patches) if min_patches == MIN_PATCHES else min_patches,
            max_patches=max_patches,
        ),
        interpolate_positions=interpolate_positions,
        image_size=image_size,
    )
