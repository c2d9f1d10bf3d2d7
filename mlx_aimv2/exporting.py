"""From any checkpoint that can be read back to the layouts of other programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .checkpoints.atomic import new_folder
from .checkpoints.eras import original_config, timm_config
from .checkpoints.layouts import LAYOUTS
from .checkpoints.shards import Entry, write_shards
from .config import AnyConfig
from .conversion import check_space, copy_files, one_by_one, without_source
from .errors import InputError
from .events import OnEvent, ignore
from .fusing import fused_tensors, fusible
from .preparation import ConvertOptions, prepare

FORMATS = ("transformers", "apple", "apple-mlx", "timm")


def export(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    format: str = "transformers",
    *,
    options: ConvertOptions | None = None,
    adapter_path: str | os.PathLike[str] | None = None,
    any_base: bool = False,
    on_event: OnEvent = ignore,
) -> Path:
    """Write a checkpoint in another program's layout, with plain weights.

    Args:
        source: a folder, a repository or a short name; any layout this package reads, quantized or not.
        target: the folder to write; it must not exist, and appears whole or not at all.
        format: "transformers" (opens with `from_pretrained`), "apple", "apple-mlx" or "timm" (vision encoders of
            fixed size without a head).
        options: dtype and size of the files.
        adapter_path: an adapter to merge into the weights first.
        any_base: also where it was trained on another checkpoint.
        on_event: called with progress and notices.

    Returns:
        The folder.

    Raises:
        InputError: an unknown format, one that has no place for this model, or an adapter of another base.
        OutputError: the folder exists already, does not fit on the disk, or cannot be written.
        CheckpointError: the source is no checkpoint, or is damaged.
        HubError: the source cannot be had from the Hub.
    """
    options = options or ConvertOptions()
    if format not in FORMATS:
        raise InputError(f"format {format!r} is not one of {', '.join(FORMATS)}")
    if options.scheme is not None or options.quant_predicate is not None:
        raise InputError("other programs' layouts have no place for quantized weights")
    path = Path(target).expanduser()
    adapter = fusible(adapter_path) if adapter_path is not None else None
    with new_folder(path) as folder:
        conversion = prepare(source, options, on_event=on_event)
        config = conversion.checkpoint.config
        entry = _config(config, format)
        dtypes = {one.name: one.dtype for one in conversion.planned}
        plain = dict(conversion.tensors)
        conversion.tensors.clear()
        if adapter is not None:
            plain = fused_tensors(conversion.checkpoint, plain, adapter, any_base)
        cast = {name: x.astype(dtypes[name]) for name, x in plain.items()}
        del plain
        tensors, unknown = LAYOUTS[format].from_canonical(cast)
        del cast
        if unknown:
            raise InputError(
                f"{format} has no place for {len(unknown)} tensors of this model, such as {unknown[0]}"
            )
        entries = [Entry(name, x.dtype, tuple(x.shape)) for name, x in tensors.items()]
        check_space(folder, sum(entry.nbytes for entry in entries))
        note = {"format": "mlx" if format == "apple-mlx" else "pt"}
        write_shards(
            folder, entries, one_by_one(tensors, "exporting", on_event), options.max_shard_bytes, note
        )
        entry |= {} if format == "timm" else {"torch_dtype": conversion.dtype}
        (folder / "config.json").write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
        copy_files(conversion.checkpoint.resolved.folder, folder)
    return path


def _config(config: AnyConfig, format: str) -> dict[str, Any]:
    if format == "timm":
        return timm_config(config)
    entry = config.to_dict() if format == "transformers" else original_config(config)
    return without_source(entry)
