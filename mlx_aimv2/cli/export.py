"""`mlx-aimv2 export`: a checkpoint in another program's layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from ..conversion.options import EXPORT_FORMATS, ExportOptions
from ..errors import InputError
from ..options.fields import like, one_of, option, options_from
from ..presets import find
from . import convert
from .completion import checkpoints
from .guard import verb
from .model_options import AdapterOptions, CheckpointOptions
from .output import say
from .screen import screen


@dataclass(frozen=True)
class ResultOptions:
    """The files to write."""

    format: str = option(
        "transformers", "transformers, apple, apple-mlx or timm.", None, one_of(EXPORT_FORMATS)
    )
    dtype: str | None = like(ExportOptions, "dtype")
    max_shard_size: str | None = like(convert.ResultOptions, "max_shard_size")
    force: bool = like(ExportOptions, "force")


@verb
def export(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, a repository, or a short name; leave it out for the base of the adapter.",
            autocompletion=checkpoints,
        ),
    ],
    result: ResultOptions,
    adapter: AdapterOptions,
    checkpoint: CheckpointOptions,
    target: Annotated[Path | None, typer.Argument(help="The folder to write.")] = None,
) -> None:
    """Write a checkpoint, with an adapter merged into it, as transformers, Apple's code or timm read it."""
    from ..backend.device import require_mlx

    require_mlx()
    from ..checkpoints.bundled import is_demo
    from ..conversion.export import export as run

    shard_bytes = convert.parse_size(result.max_shard_size)
    options = options_from(ExportOptions, result, adapter, checkpoint, max_shard_bytes=shard_bytes)
    revision = checkpoint.revision
    if target is None:
        if adapter.adapter_path is None or is_demo(source) or find(source) is not None:
            raise InputError(f"name the folder to write too: mlx-aimv2 export {quote(source)} FOLDER")
        target = Path(source)
        source, revision = adapter.base(None, revision)
    with screen() as events:
        written = run(
            source,
            target,
            result.format,
            revision,
            options=options,
            adapter_path=adapter.adapter,
            on_event=events,
        )
    say(f"wrote {written} in the layout of {result.format}")
