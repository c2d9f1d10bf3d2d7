"""From any published layout to a checkpoint in this package's own format.

The format is a folder as on the Hub: transformers' keys in config.json, transformers' tensor names, the patch
kernel as (D, p, p, C), metadata `{"format": "mlx"}`, and the preprocessor, tokenizer and licence of the source.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from .checkpoints.atomic import new_folder, save_tensors
from .checkpoints.quantize import dequantize
from .checkpoints.selection import CONFIG, small_files
from .errors import InputError
from .events import Notice, OnEvent, ignore
from .loading import Checkpoint, build_model, inspect
from .models.backend import DTYPES

OF_THE_SOURCE = ("quantization", "quantization_config", "auto_map", "torch_dtype")  # and of no other files


def convert(
    hf_path: str | os.PathLike[str],
    mlx_path: str | os.PathLike[str],
    dtype: str = "float32",
    revision: str | None = None,
    *,
    weights: str | None = None,
    on_event: OnEvent = ignore,
) -> Path:
    """Write a checkpoint in this package's own format.

    Args:
        hf_path: a folder, a repository or a short name; any published layout.
        mlx_path: the folder to write; it must not exist, and appears whole or not at all.
        dtype: float32, float16 or bfloat16; position tables and the logit scale stay in float32.
        revision: branch, tag or commit of the repository.
        weights: the name of one weight file of the source, where it holds several.
        on_event: called with progress and notices.

    Returns:
        The folder.

    Raises:
        InputError: an unknown dtype.
        OutputError: the folder exists already or cannot be written.
        CheckpointError: the source is no checkpoint, or is damaged.
        HubError: the source cannot be had from the Hub.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    target = Path(mlx_path).expanduser()
    with new_folder(target) as folder:
        checkpoint = _unpacked(inspect(hf_path, revision, weights, on_event), getattr(mx, dtype), on_event)
        source, config = checkpoint.resolved.folder, checkpoint.config
        model = build_model(checkpoint, getattr(mx, dtype), on_event=on_event)
        save_tensors(folder / "model.safetensors", dict(tree_flatten(model.parameters())), "mlx")
        entry = {**config.to_dict(), "dtype": dtype}
        for name in OF_THE_SOURCE:
            entry.pop(name, None)
        (folder / "config.json").write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
        for name in small_files(path.name for path in source.iterdir() if path.is_file()):
            if name != CONFIG:
                shutil.copyfile(source / name, folder / name)
    return target


def _unpacked(checkpoint: Checkpoint, dtype: mx.Dtype, on_event: OnEvent) -> Checkpoint:
    """The same with plain weights, on any device."""
    if checkpoint.quantization is None:
        return checkpoint
    on_event(Notice(f"the source's {checkpoint.quantization} weights are written unpacked"))
    plain = dequantize(checkpoint.tensors, checkpoint.quantization, dtype)
    return dataclasses.replace(checkpoint, tensors=plain, quantization=None)
