"""`mlx-aimv2 convert`: a checkpoint of any published layout into this package's own format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Revision, Weights
from .ui import say, screen, verb


@verb
def convert(
    hf_path: Annotated[
        str, typer.Option("--hf-path", "--model", help="A folder, a repository, or a short name.")
    ],
    mlx_path: Annotated[Path, typer.Option(help="The folder to write; it must not exist.")] = Path(
        "mlx_model"
    ),
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    revision: Revision = None,
    weights: Weights = None,
) -> None:
    """Convert a checkpoint of any published layout to this package's own format."""
    from .. import convert as run

    with screen() as shown:
        written = run(hf_path, mlx_path, dtype, revision, weights=weights, on_event=shown)
    say(f"wrote {written}; try: mlx-aimv2 info {written}")
