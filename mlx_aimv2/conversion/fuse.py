"""Fusing: merge an adapter into the weights of its base, and write a plain checkpoint, as fast as the base."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten

from ..adapters.adapter_folder import AdapterFolder
from ..adapters.attach import fuse as fuse_modules
from ..adapters.task import Task, write_task
from ..adapters.weights import HEAD
from ..backend.threads import computing
from ..checkpoints.file_names import CONFIG
from ..checkpoints.files import find_weights, inside, read_header
from ..checkpoints.foreign_configs import without_source
from ..checkpoints.identity import Origin, checkpoint_hash
from ..checkpoints.matching import check_fit, dtype_name
from ..checkpoints.shards import Entry, write_shards
from ..errors import InputError
from ..events import Notice, OnEvent, warn
from ..loading import Checkpoint, inspect, make_model, origin_of
from ..publishing.card import CARD, model_card
from ..quantization.scheme import Quantization, dequantize, quantize_modules, quantized_paths
from ..storage.atomic import new_folder
from ..storage.json_files import write_json
from .options import FuseOptions
from .target_folder import check_apart, check_space, copy_files, source_facts, stream_tensors, target_folder


@computing
def fuse(
    base: str | os.PathLike[str],
    adapter_path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    options: FuseOptions | None = None,
    on_event: OnEvent = warn,
) -> Path:
    """Write a plain checkpoint with the outputs of base and adapter together.

    A trained head is written beside it: ``load(target, adapter_path=target)`` gives the classifier then.

    Args:
        base: a folder, a repository or a short name; any published layout.
        adapter_path: the folder of the adapter, as this package or PEFT writes it.
        target: the folder to write; it must not exist, and appears whole or not at all.
        options: whether to dequantize, and the rest.
        on_event: called with progress and notices.

    Returns:
        The folder.

    Raises:
        InputError: the adapter belongs to another base, or there is nothing to dequantize.
        OutputError: the folder exists already, does not fit on the disk, or cannot be written.
        CheckpointError: base or adapter is damaged, or they do not fit together.
        HubError: the Hub does not deliver the base.
    """
    options = options or FuseOptions()
    path, adapter = target_folder(target, options.force), check_fusible(adapter_path)
    with new_folder(path, replace=options.force) as folder:
        checkpoint = inspect(base, options.revision, options.weights, on_event)
        check_apart(path, checkpoint.resolved.folder, adapter.path)
        _check_base(checkpoint, adapter, options, on_event)
        quantization = None if options.dequantize else checkpoint.quantization
        nbytes = _write_weights(folder, checkpoint, adapter, options, on_event)
        entry = without_source(checkpoint.config.to_dict()) | {"dtype": dtype_name(checkpoint.stored_dtype)}
        write_json(folder / CONFIG, entry | (quantization.to_config() if quantization else {}))
        copy_files(checkpoint, folder)
        if isinstance(adapter.task, Task):
            shutil.copyfile(inside(adapter.path, HEAD), folder / HEAD)
            origin = _fused_origin(folder, path, checkpoint, quantization)
            write_task(folder, dataclasses.replace(adapter.task, base=origin))
        parameters = dict(tree_flatten(make_model(checkpoint.config).parameters()))
        facts = source_facts(checkpoint, path.name, sum(x.size for x in parameters.values()), nbytes)
        name, training = str(quantization) if quantization else None, _training_sentence(adapter)
        facts = dataclasses.replace(facts, quantization=name, training=training)
        (folder / CARD).write_text(model_card(facts), encoding="utf-8")
    return path


def check_fusible(adapter_path: str | os.PathLike[str]) -> AdapterFolder:
    """Read the folder of an adapter, a trained encoder or a trained pair.

    Raises:
        InputError: the folder holds only a head.
        CheckpointError: there is no such folder, it holds none of these, or a file is damaged.
    """
    adapter = AdapterFolder.read(adapter_path)
    if not adapter.has_weights:
        raise InputError(f"{adapter} holds a trained head and no adapter: there is nothing to fuse")
    return adapter


def _check_base(
    checkpoint: Checkpoint, adapter: AdapterFolder, options: FuseOptions, on_event: OnEvent
) -> None:
    """Check options, base and head before the work."""
    if options.dequantize and checkpoint.quantization is None:
        raise InputError(f"{checkpoint.resolved.folder} is not quantized: there is nothing to dequantize")
    adapter.check(stored_origin(checkpoint), options.any_base, on_event)
    if isinstance(adapter.task, Task):
        adapter.head(checkpoint.config.vision.hidden_size)
    if checkpoint.quantization is not None and not options.dequantize:
        on_event(
            Notice(
                "adapted weights are quantized again, which rounds what was learned: --dequantize does not"
            )
        )


def stored_origin(checkpoint: Checkpoint) -> Origin:
    """The origin of a checkpoint in the dtype that it is stored in."""
    return origin_of(checkpoint, checkpoint.stored_dtype)


def _write_weights(
    folder: Path, checkpoint: Checkpoint, adapter: AdapterFolder, options: FuseOptions, on_event: OnEvent
) -> int:
    """Write the fused tensors, and return their bytes."""
    tensors = checkpoint.open()
    if options.dequantize and checkpoint.quantization is not None:
        tensors = dequantize(tensors, checkpoint.quantization, checkpoint.stored_dtype)
    tensors = fused_tensors(checkpoint, tensors, adapter)
    entries = [Entry(name, x.dtype, tuple(x.shape)) for name, x in tensors.items()]
    nbytes = sum(entry.nbytes for entry in entries)
    check_space(folder, nbytes)
    stream = stream_tensors(tensors, "fusing", on_event)
    write_shards(folder, entries, stream, options.max_shard_bytes, {"format": "mlx"})
    return nbytes


def fused_tensors(
    checkpoint: Checkpoint, tensors: Mapping[str, mx.array], adapter: AdapterFolder
) -> dict[str, mx.array]:
    """A checkpoint's tensors with an adapter merged into them, lazy: packed where ``tensors`` are, else plain.

    Args:
        checkpoint: the base.
        tensors: its canonical tensors, lazy.
        adapter: what to merge.

    Raises:
        InputError: the adapter is a pair's, and the checkpoint is none.
        CheckpointError: the adapter is damaged or does not fit, or the tensors do not.
    """
    model = make_model(checkpoint.config)  # its random weights are never computed
    paths = quantized_paths(tensors)
    if checkpoint.quantization is not None and paths:
        quantize_modules(model, checkpoint.quantization, paths)
    expected = dict(tree_flatten(model.parameters()))
    check_fit(expected, tensors, checkpoint.unknown, str(checkpoint.resolved.folder))
    model.load_weights(list(tensors.items()))
    model.origin = stored_origin(checkpoint)
    adapter.put_weights_on(model)
    fuse_modules(model)
    if checkpoint.quantization is not None and paths:  # a whole trained encoder has plain weights
        quantize_modules(model, checkpoint.quantization, paths)
    return dict(tree_flatten(model.parameters()))


def _fused_origin(
    folder: Path, path: Path, checkpoint: Checkpoint, quantization: Quantization | None
) -> Origin:
    """The identity of the checkpoint in ``folder``, which is moved to ``path`` later."""
    return Origin(
        name=str(path),
        revision=None,
        checkpoint=checkpoint_hash(read_header(find_weights(folder))),
        layout="mlx",
        dtype=dtype_name(checkpoint.stored_dtype),
        quantization=str(quantization) if quantization else None,
    )


def _training_sentence(adapter: AdapterFolder) -> str:
    """The sentence on the model card that says what was trained."""
    if adapter.has_trunk:
        return "Its image encoder was trained further, as a whole."
    if adapter.adapter is None:
        return "It was trained further on images and their captions."
    config = adapter.adapter.config
    return f"A {'DoRA' if config.dora else 'LoRA'} adapter of rank {config.rank} was merged into its weights."
