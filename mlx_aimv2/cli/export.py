"""`mlx-aimv2 export`: a checkpoint in another program's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .convert import parse_size
from .options import Revision, Weights
from .ui import say, screen, verb


@verb
def export(
    source: Annotated[str, typer.Argument(help="A folder, a repository, or a short name.")],
    target: Annotated[Path, typer.Argument(help="The folder to write; it must not exist.")],
    format: Annotated[str, typer.Option(help="transformers, apple, apple-mlx or timm.")] = "transformers",
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16. \\[default: as stored]")
    ] = None,
    max_shard_size: Annotated[str, typer.Option(help="Of one weight file, such as 500MB.")] = "5GB",
    revision: Revision = None,
    weights: Weights = None,
) -> None:
    """Write a checkpoint as transformers, Apple's code or timm read it; quantized weights are unpacked."""
    from ..models.backend import require_mlx

    require_mlx()
    from ..exporting import export as run
    from ..preparation import ConvertOptions

    options = ConvertOptions(dtype=dtype, max_shard_bytes=parse_size(max_shard_size), weights=weights)
    with screen() as shown:
        written = run(source, target, format, revision, options=options, on_event=shown)
    say(f"wrote {written} in the layout of {format}")
