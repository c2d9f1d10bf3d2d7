"""`mlx-aimv2 fuse`: an adapter merged into the weights of its base."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from .convert import parse_size
from .guard import verb
from .output import say
from .parameters import AdaptedModel, AnyBase, Force, Revision, Weights
from .screen import screen
from .trained_folders import base_of


@verb
def fuse(
    model: AdaptedModel = None,
    adapter_path: Annotated[
        Path, typer.Option(help="The folder of the adapter, as finetune or PEFT writes it.")
    ] = Path("adapters"),
    save_path: Annotated[Path, typer.Option(help="The folder to write.")] = Path("fused_model"),
    force: Force = False,
    dequantize: Annotated[
        bool, typer.Option("-d", "--dequantize", help="Of a quantized base, write plain weights.")
    ] = False,
    max_shard_size: Annotated[str, typer.Option(help="Of one weight file, such as 500MB.")] = "5GB",
    revision: Revision = None,
    weights: Weights = None,
    any_base: AnyBase = False,
) -> None:
    """Merge an adapter into its base: a plain checkpoint as fast as the base, with the trained head beside it."""
    from ..backend.device import require_mlx

    require_mlx()
    from ..adapters.task import TASK
    from ..conversion.fuse import FuseOptions
    from ..conversion.fuse import fuse as run

    base, revision = base_of(model, revision, adapter_path)
    options = FuseOptions(dequantize, revision, weights, parse_size(max_shard_size), any_base, force)
    with screen() as shown:
        written = run(base, adapter_path, save_path, options=options, on_event=shown)
    name = quote(str(written))
    head = f"; its head: --model {name} --adapter-path {name}" if (written / TASK).is_file() else ""
    say(f"wrote {written}{head}; try: mlx-aimv2 info {name}")
