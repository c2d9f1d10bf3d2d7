"""From any checkpoint that can be read back to the layouts of other programs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

from .checkpoints.atomic import new_folder
from .checkpoints.eras import original_config, timm_config
from .checkpoints.layouts import LAYOUTS
from .checkpoints.shards import Entry, write_shards
from .config import AnyConfig
from .conversion import check_space, copy_files, without_source
from .errors import InputError
from .events import OnEvent, Progress, ignore
from .preparation import ConvertOptions, prepare

FORMATS = ("transformers", "apple", "apple-mlx", "timm")


def export(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    format: str = "transformers",
    *,
    options: ConvertOptions | None = None,
    on_event: OnEvent = ignore,
) -> Path:
    """Write a checkpoint in another program's layout, with plain weights.

    Args:
        source: a folder, a repository or a short name; any layout this package reads, quantized or not.
        target: the folder to write; it must not exist, and appears whole or not at all.
        format: "transformers" (opens with `from_pretrained`), "apple", "apple-mlx" or "timm" (vision encoders of
            fixed size without a head).
        options: dtype and size of the files.
        on_event: called with progress and notices.

    Returns:
        The folder.

    Raises:
        InputError: an unknown format, or one that has no place for this model.
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
    with new_folder(path) as folder:
        conversion = prepare(source, options, on_event=on_event)
        config = conversion.checkpoint.config
        entry = _config(config, format)
        dtypes = {one.name: one.dtype for one in conversion.planned}
        cast = {name: x.astype(dtypes[name]) for name, x in conversion.tensors.items()}
        conversion.tensors.clear()
        tensors, unknown = LAYOUTS[format].from_canonical(cast)
        del cast
        if unknown:
            raise InputError(
                f"{format} has no place for {len(unknown)} tensors of this model, such as {unknown[0]}"
            )
        entries = [Entry(name, x.dtype, tuple(x.shape)) for name, x in tensors.items()]
        check_space(folder, sum(entry.nbytes for entry in entries))
        note = {"format": "mlx" if format == "apple-mlx" else "pt"}
        write_shards(folder, entries, _one_by_one(tensors, on_event), options.max_shard_bytes, note)
        entry |= {} if format == "timm" else {"torch_dtype": conversion.dtype}
        (folder / "config.json").write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
        copy_files(conversion.checkpoint.resolved.folder, folder)
    return path


def _one_by_one(tensors: dict[str, mx.array], on_event: OnEvent) -> Iterator[tuple[str, mx.array]]:
    """The tensors in order, each let go when the next is asked for."""
    total = len(tensors)
    for number, name in enumerate(list(tensors)):
        yield name, tensors.pop(name)
        on_event(Progress("exporting", number + 1, total, unit="tensors"))


def _config(config: AnyConfig, format: str) -> dict[str, Any]:
    if format == "timm":
        return timm_config(config)
    entry = config.to_dict() if format == "transformers" else original_config(config)
    return without_source(entry)
