"""Export of a checkpoint to the layouts of other programs: transformers, Apple's code, timm."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..adapters.task import Task
from ..backend.device import without_cache
from ..backend.threads import computing
from ..checkpoints.file_names import CONFIG
from ..checkpoints.foreign_configs import original_config, timm_config, without_source
from ..checkpoints.layouts import LAYOUTS
from ..checkpoints.matching import dtype_name
from ..checkpoints.shards import Entry, write_shards
from ..errors import ConfigError, InputError
from ..events import Notice, OnEvent, warn
from ..loading import Checkpoint
from ..messages import counted
from ..options.fields import options_from
from ..processing.image_config import PREPROCESSOR
from ..processing.image_settings import find_settings
from ..storage.atomic import new_folder
from ..storage.json_files import write_json
from .fuse import check_fusible, fused_tensors, stored_origin
from .options import EXPORT_FORMATS, ConvertOptions, ExportOptions
from .plan import Conversion, plan_conversion
from .target_folder import check_apart, check_space, copy_files, stream_tensors, target_folder


@computing
def export(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    format: str = "transformers",
    revision: str | None = None,
    *,
    options: ExportOptions | None = None,
    adapter_path: str | os.PathLike[str] | None = None,
    on_event: OnEvent = warn,
) -> Path:
    """Write a checkpoint in another program's layout, with plain weights.

    Args:
        source: a folder, a repository or a short name; any layout this package reads, quantized or not.
        target: the folder to write; it must not exist, and appears whole or not at all.
        format: "transformers" (for `from_pretrained`), "apple", "apple-mlx", or "timm" (fixed size, no head).
        revision: branch, tag or commit of the repository.
        options: dtype and size of the files, and the rest.
        adapter_path: the folder of an adapter to merge into the weights first; None for none.
        on_event: called with progress and notices.

    Returns:
        The folder.

    Raises:
        InputError: the format is unknown or has no place for this model, or the adapter belongs to another base.
        OutputError: the folder exists already, does not fit on the disk, or cannot be written.
        CheckpointError: the source is no checkpoint, or is damaged.
        HubError: the Hub does not deliver the source.
    """
    options = options or ExportOptions()
    if format not in EXPORT_FORMATS:
        raise InputError(f"format {format!r} is not one of {', '.join(EXPORT_FORMATS)}")
    convert_options, path = options_from(ConvertOptions, options), target_folder(target, options.force)
    adapter = check_fusible(adapter_path) if adapter_path is not None else None
    if adapter is not None and isinstance(adapter.task, Task):
        on_event(Notice(f"the head in {adapter} stays there: the encoder alone is exported"))
    with new_folder(path, replace=options.force) as folder:
        conversion = plan_conversion(source, convert_options, revision, on_event, may_stay_packed=False)
        checkpoint = conversion.checkpoint
        check_apart(path, checkpoint.resolved.folder)
        entry, tensors = _config(conversion, format), conversion.open()
        if adapter is not None:
            adapter.check(stored_origin(checkpoint), options.any_base, on_event)
            tensors = fused_tensors(checkpoint, tensors, adapter)
        _write_weights(folder, conversion, tensors, format, on_event, options.max_shard_bytes)
        write_json(folder / CONFIG, entry)
        copy_files(checkpoint, folder)
        _report_image_settings(checkpoint, format, on_event)
    return path


def _write_weights(
    folder: Path,
    conversion: Conversion,
    plain: dict[str, mx.array],
    format: str,
    on_event: OnEvent,
    max_shard_bytes: int,
) -> None:
    """Cast and rename the tensors, and write them."""
    dtypes = {tensor.name: tensor.dtype for tensor in conversion.planned}
    cast = {name: x.astype(dtypes[name]) for name, x in plain.items()}
    plain.clear()
    tensors, unknown = LAYOUTS[format].from_canonical(cast)
    del cast  # frees each tensor as soon as it is written
    if unknown:
        raise InputError(
            f"{format} has no place for {counted(len(unknown), 'tensor')} of this model, such as {unknown[0]}"
        )
    entries = [Entry(name, x.dtype, tuple(x.shape)) for name, x in tensors.items()]
    check_space(folder, sum(entry.nbytes for entry in entries))
    metadata = {"format": "mlx" if format == "apple-mlx" else "pt"}
    with without_cache():
        write_shards(
            folder, entries, stream_tensors(tensors, "exporting", on_event), max_shard_bytes, metadata
        )


def _report_image_settings(checkpoint: Checkpoint, format: str, on_event: OnEvent) -> None:
    """Report image settings that are defaults, and what the other program does differently."""
    with contextlib.suppress(ConfigError):
        settings = find_settings(checkpoint.resolved.folder, checkpoint.config)
        notes = list(settings.notes)
        if format != "timm" and (unusual := settings.config.unusual):
            names = ", ".join("size.longest_edge" if name == "longest" else name for name in unusual)
            notes.append(
                f"transformers has no {names}, which is in {PREPROCESSOR}: its images will be cut otherwise"
            )
        if format == "timm" and settings.config.crop_rounding == "down" and settings.config.do_center_crop:
            notes.append("timm crops the middle of an image up to one pixel beside where transformers does")
        for note in notes:
            on_event(Notice(note))


def _config(conversion: Conversion, format: str) -> dict[str, Any]:
    """The config.json of the result, with its dtype under the new and the old key of transformers."""
    config = conversion.checkpoint.config
    if format == "timm":
        settings = find_settings(conversion.checkpoint.resolved.folder, config).config
        resampled = conversion.checkpoint.resampled
        return timm_config(config, settings.resized(config.vision.image_size) if resampled else settings)
    entry = config.to_dict() if format == "transformers" else original_config(config)
    dtype = dtype_name(conversion.dtype)
    return without_source(entry) | {"dtype": dtype, "torch_dtype": dtype}
