"""From any published layout to a checkpoint in this package's own format, and back.

The format is a folder as on the Hub: transformers' keys in config.json, transformers' tensor names, the patch
kernel as (D, p, p, C), metadata `{"format": "mlx"}`, quantized weights as mlx-lm writes them, and the preprocessor,
tokenizer and licence of the source. Tensors are read, converted and written one by one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from .checkpoints.atomic import new_folder
from .checkpoints.quantize import Quantization, Scheme, dequantize
from .checkpoints.selection import CONFIG, small_files
from .checkpoints.shards import Entry, write_shards
from .errors import InputError, OutputError
from .events import Notice, OnEvent, Progress, ignore
from .loading import Checkpoint, check_fit, inspect, make_model
from .models.backend import DTYPES
from .planning import Planned, mixed, plan

OF_THE_SOURCE = ("quantization", "quantization_config", "auto_map", "torch_dtype")  # and of no other files
MAX_SHARD_BYTES = 5 * 10**9


@dataclass(frozen=True)
class ConvertOptions:
    """How to convert.

    Attributes:
        dtype: float32, float16 or bfloat16; None for what most of the source's weights are stored in. Position
            tables and the logit scale stay in float32.
        scheme: how to quantize; None for not at all.
        quant_predicate: a recipe of mlx-lm (`mixed_4_6` …) in place of ``scheme``.
        dequantize: unpack a quantized source.
        max_shard_bytes: data in one weight file.
        weights: the name of one weight file of the source, where it holds several.
    """

    dtype: str | None = None
    scheme: Scheme | None = None
    quant_predicate: str | None = None
    dequantize: bool = False
    max_shard_bytes: int = MAX_SHARD_BYTES
    weights: str | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            InputError: an unknown dtype, quantizing and dequantizing at once, or shards of nothing.
        """
        if self.dtype is not None and self.dtype not in DTYPES:
            raise InputError(f"dtype {self.dtype!r} is not one of {', '.join(DTYPES)}")
        if self.dequantize and (self.scheme or self.quant_predicate):
            raise InputError("quantize and dequantize exclude each other: give one of them")
        if self.max_shard_bytes < 1:
            raise InputError(f"a shard must hold at least 1 byte, not {self.max_shard_bytes}")


@dataclass(frozen=True)
class Conversion:
    """A conversion that has been worked out and not begun: what `--dry-run` shows.

    Attributes:
        checkpoint: the source.
        tensors: its plain canonical tensors, lazy.
        planned: what becomes of each.
        quantization: of the result.
        dtype: of the result.
    """

    checkpoint: Checkpoint
    tensors: dict[str, mx.array]
    planned: list[Planned]
    quantization: Quantization | None
    dtype: str

    @property
    def entries(self) -> list[Entry]:
        """Every tensor of the result."""
        return [entry for one in self.planned for entry in one.entries]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors of the result."""
        return sum(entry.nbytes for entry in self.entries)

    @property
    def bits_per_weight(self) -> float:
        """Bits of the result for each weight of the model, scales included."""
        return 8 * self.nbytes / sum(x.size for x in self.tensors.values())


def prepare(
    hf_path: str | os.PathLike[str],
    options: ConvertOptions,
    revision: str | None = None,
    on_event: OnEvent = ignore,
) -> Conversion:
    """Work a conversion out from the headers of its source.

    Raises:
        CheckpointError: the source is no checkpoint, is damaged, or does not fit its configuration.
        HubError: the source cannot be had from the Hub.
        InputError: an option that the source does not allow.
    """
    checkpoint = inspect(hf_path, revision, options.weights, on_event)
    dtype = options.dtype or _stored_dtype(checkpoint)
    if options.dequantize and checkpoint.quantization is None:
        raise InputError(f"{hf_path} is not quantized: there is nothing to dequantize")
    tensors = checkpoint.tensors
    if checkpoint.quantization is not None:
        tensors = dequantize(tensors, checkpoint.quantization, getattr(mx, dtype))
        on_event(Notice(f"the source's {checkpoint.quantization} weights are unpacked first"))
    expected = dict(tree_flatten(make_model(checkpoint.config).parameters()))
    check_fit(expected, tensors, checkpoint.unknown, str(checkpoint.resolved.folder))
    quantization = Quantization(options.scheme) if options.scheme else None
    if options.quant_predicate:
        group_size = options.scheme.group_size if options.scheme else 64
        quantization = mixed(options.quant_predicate, tensors, group_size)
    planned = plan(tensors, getattr(mx, dtype), quantization)
    return Conversion(checkpoint, tensors, planned, quantization, dtype)


def _stored_dtype(checkpoint: Checkpoint) -> str:
    names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    sizes: dict[str, int] = {}
    for info in checkpoint.header.tensors.values():
        if info.dtype in names:
            sizes[names[info.dtype]] = sizes.get(names[info.dtype], 0) + info.nbytes
    return max(sizes, key=lambda name: sizes[name], default="float32")


def convert(
    hf_path: str | os.PathLike[str],
    mlx_path: str | os.PathLike[str],
    dtype: str | None = None,
    revision: str | None = None,
    *,
    options: ConvertOptions | None = None,
    on_event: OnEvent = ignore,
) -> Path:
    """Write a checkpoint in this package's own format.

    Args:
        hf_path: a folder, a repository or a short name; any published layout.
        mlx_path: the folder to write; it must not exist, and appears whole or not at all.
        dtype: float32, float16 or bfloat16; None for what ``options`` say, or what the source is stored in.
        revision: branch, tag or commit of the repository.
        options: quantization, size of the files, and the rest.
        on_event: called with progress and notices.

    Returns:
        The folder.

    Raises:
        InputError: an option that the source does not allow.
        OutputError: the folder exists already, does not fit on the disk, or cannot be written.
        CheckpointError: the source is no checkpoint, or is damaged.
        HubError: the source cannot be had from the Hub.
    """
    options = options or ConvertOptions()
    options = dataclasses.replace(options, dtype=dtype) if dtype is not None else options
    target = Path(mlx_path).expanduser()
    with new_folder(target) as folder:
        conversion = prepare(hf_path, options, revision, on_event)
        check_space(folder, conversion.nbytes)
        stream = _converted(conversion, on_event)
        write_shards(folder, conversion.entries, stream, options.max_shard_bytes, {"format": "mlx"})
        _write_json(folder / "config.json", _config_entry(conversion))
        copy_files(conversion.checkpoint.resolved.folder, folder)
    return target


def _converted(conversion: Conversion, on_event: OnEvent) -> Iterator[tuple[str, mx.array]]:
    """The result's tensors in order; each source tensor is let go as soon as it has been converted."""
    limit = mx.set_cache_limit(0)
    try:
        for number, one in enumerate(conversion.planned):
            x = conversion.tensors.pop(one.name).astype(one.dtype)
            parts = (x,) if one.scheme is None else mx.quantize(x, **one.scheme.arguments())
            del x
            mx.eval(parts)
            yield from zip((entry.name for entry in one.entries), parts, strict=True)
            on_event(Progress("converting", number + 1, len(conversion.planned), unit="tensors"))
    finally:
        mx.set_cache_limit(limit)


def _config_entry(conversion: Conversion) -> dict[str, Any]:
    entry = {**conversion.checkpoint.config.to_dict(), "dtype": conversion.dtype}
    for name in OF_THE_SOURCE:
        entry.pop(name, None)
    if conversion.quantization is not None:
        entry["quantization"] = _quantization_entry(conversion)
        entry["quantization_config"] = entry["quantization"]  # the name under which transformers looks for it
    return entry


def _quantization_entry(conversion: Conversion) -> dict[str, Any]:
    """As mlx-lm writes it: the scheme of most modules, and those that differ by path."""
    quantization = conversion.quantization
    if quantization is None:
        return {}
    default = quantization.default.arguments()
    schemes = {one.name.removesuffix(".weight"): one.scheme for one in conversion.planned if one.scheme}
    others = {path: s.arguments() for path, s in schemes.items() if s != quantization.default}
    return {**default, **others}


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def copy_files(source: Path, folder: Path) -> None:
    """Preprocessor, tokenizer, licence, card: everything small but the configuration, which is written anew."""
    for name in small_files(path.name for path in source.iterdir() if path.is_file()):
        if name != CONFIG:
            shutil.copyfile(source / name, folder / name)


def check_space(folder: Path, nbytes: int) -> None:
    """Refuse a result that the disk has no room for.

    Raises:
        OutputError: there is too little.
    """
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise OutputError(
            f"{folder.parent} has {free / 1e9:.2f} GB free, and the result takes {nbytes / 1e9:.2f} GB:"
            " make room, or write to another disk"
        )
