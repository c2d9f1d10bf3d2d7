"""From any checkpoint that can be read back to the layouts of other programs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..adapters.task import HEAD
from ..backend.device import without_cache
from ..backend.threads import computing
from ..checkpoints.file_names import CONFIG
from ..checkpoints.foreign_configs import original_config, timm_config, without_source
from ..checkpoints.layouts import LAYOUTS
from ..checkpoints.shards import Entry, write_shards
from ..errors import ConfigError, InputError
from ..events import Notice, OnEvent, ignore
from ..loading import Checkpoint
from ..messages import counted
from ..processing.image_config import PREPROCESSOR
from ..processing.image_settings import find_settings
from ..storage.atomic import new_folder
from ..storage.json_files import write_json
from .fuse import fused_tensors, fusible
from .options import Conversion, ConvertOptions, prepare
from .target_folder import check_apart, check_space, copy_files, one_by_one, target_folder

FORMATS = ("transformers", "apple", "apple-mlx", "timm")


@computing
def export(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    format: str = "transformers",
    revision: str | None = None,
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
        revision: branch, tag or commit of the repository.
        options: dtype and size of the files, and the name of the weight file to read.
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
    path = target_folder(target, options.force)
    adapter = fusible(adapter_path) if adapter_path is not None else None
    if adapter is not None and (adapter / HEAD).is_file():
        on_event(Notice(f"the head in {adapter} stays there: the encoder alone is exported"))
    with new_folder(path, replace=options.force) as folder:
        conversion = prepare(source, options, revision, on_event, may_stay_packed=False)
        check_apart(path, conversion.checkpoint.resolved.folder)
        entry = _config(conversion, format)
        fused = _fusing(conversion, adapter, any_base)
        _write_weights(folder, conversion, fused, format, options, on_event)
        write_json(folder / CONFIG, entry)
        copy_files(conversion.checkpoint, folder)
        _tell_of_images(conversion.checkpoint, format, on_event)
    return path


def _write_weights(
    folder: Path,
    conversion: Conversion,
    plain: dict[str, mx.array],
    format: str,
    options: ConvertOptions,
    on_event: OnEvent,
) -> None:
    """Cast and rename the tensors, and write them.

    Raises:
        InputError: the format has no place for one of them.
        OutputError: they do not fit on the disk.
    """
    dtypes = {one.name: one.dtype for one in conversion.planned}
    cast = {name: x.astype(dtypes[name]) for name, x in plain.items()}
    plain.clear()
    tensors, unknown = LAYOUTS[format].from_canonical(cast)
    del cast  # so that each tensor is let go as soon as it is written
    if unknown:
        raise InputError(
            f"{format} has no place for {counted(len(unknown), 'tensor')} of this model, such as {unknown[0]}"
        )
    entries = [Entry(name, x.dtype, tuple(x.shape)) for name, x in tensors.items()]
    check_space(folder, sum(entry.nbytes for entry in entries))
    note = {"format": "mlx" if format == "apple-mlx" else "pt"}
    with without_cache():
        write_shards(
            folder, entries, one_by_one(tensors, "exporting", on_event), options.max_shard_bytes, note
        )


def _fusing(conversion: Conversion, adapter: Path | None, any_base: bool) -> dict[str, mx.array]:
    """The plain tensors, with the adapter merged into them if there is one; lazy."""
    plain = conversion.open()
    return plain if adapter is None else fused_tensors(conversion.checkpoint, plain, adapter, any_base)


def _tell_of_images(checkpoint: Checkpoint, format: str, on_event: OnEvent) -> None:
    """Say where defaults stood in for settings, and what transformers will do otherwise than this package."""
    with contextlib.suppress(ConfigError):
        settings = find_settings(checkpoint.resolved.folder, checkpoint.config)
        notes = list(settings.notes)
        if format != "timm" and (unusual := settings.config.unusual):
            words = ", ".join("size.longest_edge" if name == "longest" else name for name in unusual)
            notes.append(
                f"transformers has no {words}, which is in {PREPROCESSOR}: its images will be cut otherwise"
            )
        if format == "timm" and settings.config.crop_rounding == "down" and settings.config.do_center_crop:
            notes.append(
                "timm cuts out the middle of an image up to one pixel beside where transformers does"
            )
        for note in notes:
            on_event(Notice(note))


def _config(conversion: Conversion, format: str) -> dict[str, Any]:
    """config.json of the result, with the result's dtype under its new and its old name.

    Raises:
        InputError: timm has no such model.
        ConfigError: timm is told how images are prepared, and the source's preprocessor_config.json is damaged.
    """
    config = conversion.checkpoint.config
    if format == "timm":
        settings = find_settings(conversion.checkpoint.resolved.folder, config).config
        resampled = conversion.checkpoint.resampled
        return timm_config(config, settings.resized(config.vision.image_size) if resampled else settings)
    entry = config.to_dict() if format == "transformers" else original_config(config)
    return without_source(entry) | {"dtype": conversion.dtype, "torch_dtype": conversion.dtype}
