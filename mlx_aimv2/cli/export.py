"""`mlx-aimv2 export`: a checkpoint in another program's layout."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from ..errors import InputError
from ..presets import find
from .completion import DTYPES, LAYOUTS, checkpoints, choices
from .convert import parse_size
from .guard import verb
from .output import say
from .parameters import AnyBase, Force, ImageSize, InterpolatePositions, Revision, Weights
from .screen import screen
from .trained_folders import base_of


@verb
def export(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, a repository, or a short name; without it, the base of the adapter.",
            autocompletion=checkpoints,
        ),
    ],
    target: Annotated[Path | None, typer.Argument(help="The folder to write.")] = None,
    force: Force = False,
    format: Annotated[
        str, typer.Option(help="transformers, apple, apple-mlx or timm.", autocompletion=choices(LAYOUTS))
    ] = "transformers",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, float16 or bfloat16. [default: as stored]", autocompletion=choices(DTYPES)
        ),
    ] = None,
    max_shard_size: Annotated[str, typer.Option(help="Of one weight file, such as 500MB.")] = "5GB",
    adapter_path: Annotated[
        Path | None, typer.Option(help="The folder of an adapter to merge into the weights first.")
    ] = None,
    any_base: AnyBase = False,
    revision: Revision = None,
    weights: Weights = None,
    interpolate_positions: InterpolatePositions = False,
    image_size: ImageSize = None,
) -> None:
    """Write a checkpoint as transformers, Apple's code or timm read it; quantized weights are unpacked."""
    from ..backend.device import require_mlx

    require_mlx()
    from ..checkpoints.bundled import is_demo
    from ..conversion.export import ExportOptions
    from ..conversion.export import export as run

    if any_base and adapter_path is None:
        raise InputError("--any-base needs --adapter-path")
    options = ExportOptions(
        dtype=dtype,
        max_shard_bytes=parse_size(max_shard_size),
        weights=weights,
        force=force,
        interpolate_positions=interpolate_positions,
        image_size=image_size,
        adapter_path=adapter_path,
        any_base=any_base,
    )
    if target is None:
        if adapter_path is None or is_demo(source) or find(source) is not None:
            raise InputError(f"name the folder to write too: mlx-aimv2 export {quote(source)} FOLDER")
        target = Path(source)
        source, revision = base_of(None, revision, adapter_path)
    with screen() as shown:
        written = run(source, target, format, revision, options=options, on_event=shown)
    say(f"wrote {written} in the layout of {format}")
