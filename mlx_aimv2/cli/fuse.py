"""`mlx-aimv2 fuse`: an adapter merged into the weights of its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from ..checkpoints.load_options import FileOptions
from ..conversion.options import FuseOptions
from ..options.fields import like, option, options_from
from . import convert
from .guard import verb
from .model_options import AdaptedModelOptions
from .output import say
from .screen import screen


@dataclass(frozen=True)
class FusedAdapterOptions(AdaptedModelOptions):
    """The adapter to fuse, and its base."""

    adapter_path: Path = like(AdaptedModelOptions, "adapter_path", Path("adapters"))


@dataclass(frozen=True)
class ResultOptions:
    """The files to write."""

    save_path: Path = option(Path("fused_model"), "The folder to write.")
    dequantize: bool = like(FuseOptions, "dequantize")
    max_shard_size: str | None = like(convert.ResultOptions, "max_shard_size")
    force: bool = like(FuseOptions, "force")


@verb
def fuse(adapter: FusedAdapterOptions, result: ResultOptions, files: FileOptions) -> None:
    """Merge an adapter into its base: a checkpoint as fast as the base, with the trained head beside it."""
    from ..backend.device import require_mlx

    require_mlx()
    from ..adapters.task import TASK
    from ..conversion.fuse import fuse as run

    base, revision = adapter.base(adapter.model, files.revision)
    shard_bytes = convert.parse_size(result.max_shard_size)
    options = options_from(
        FuseOptions, adapter, result, files, revision=revision, max_shard_bytes=shard_bytes
    )
    with screen() as events:
        written = run(
            base, adapter.adapter or adapter.adapter_path, result.save_path, options=options, on_event=events
        )
    name = quote(str(written))
    head = f"; its head: --model {name} --adapter-path {name}" if (written / TASK).is_file() else ""
    say(f"wrote {written}{head}; try: mlx-aimv2 info {name}")
