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

from . import __version__
from .calibration import LAYERS, MAX_PATCHES, Calibration, read_pictures
from .card import CARD, CardFacts, model_card, read_card
from .checkpoints.atomic import new_folder
from .checkpoints.files import inside
from .checkpoints.npz import write_npz
from .checkpoints.selection import CONFIG, small_files
from .checkpoints.shards import write_shards
from .errors import OutputError
from .events import Notice, OnEvent, Progress, ignore
from .fidelity import compare
from .fidelity_report import Fidelity
from .gptq import Packed
from .loading import LoadOptions, build_processor
from .planning import Planned, layer_number, vision_prefix
from .preparation import Conversion, ConvertOptions, prepare
from .processing.image import NativeOptions
from .sources.paths import expand

OF_THE_SOURCE = (  # and of no other files
    "quantization", "quantization_config", "auto_map", "torch_dtype", "_name_or_path", "_commit_hash",
)  # fmt: skip


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
    return convert_and_report(hf_path, mlx_path, options, revision, on_event).folder


@dataclass(frozen=True)
class Converted:
    """What a conversion left: its folder, what was worked out before, and the comparison if one was asked for."""

    folder: Path
    plan: Conversion
    fidelity: Fidelity | None


def convert_and_report(
    hf_path: str | os.PathLike[str],
    mlx_path: str | os.PathLike[str],
    options: ConvertOptions,
    revision: str | None = None,
    on_event: OnEvent = ignore,
) -> Converted:
    """`convert`, and what it found out on the way."""
    target = Path(mlx_path).expanduser()
    options = dataclasses.replace(  # an empty folder is found before anything is downloaded
        options,
        calibrate=tuple(expand(options.calibrate)),
        report_pictures=tuple(expand(options.report_pictures)),
    )
    fidelity = None
    with new_folder(target) as folder:
        conversion = prepare(hf_path, options, revision, on_event)
        check_space(folder, conversion.nbytes)
        _write_weights(folder, conversion, options, on_event)
        source = conversion.checkpoint.resolved.folder
        write_json(folder / CONFIG, _config_entry(conversion))
        copy_files(source, folder)
        if options.report:
            load_options, pictures = LoadOptions(weights=options.weights), options.report_pictures or None
            fidelity = compare(
                hf_path, folder, pictures, revision=revision, options=load_options, on_event=on_event
            )
            side = dataclasses.replace(fidelity.converted, name=str(target))  # not the folder's partial name
            fidelity = dataclasses.replace(fidelity, converted=side)
        facts = _card_facts(conversion, options.card_name or target.name, fidelity)
        (folder / CARD).write_text(model_card(facts), encoding="utf-8")
    return Converted(target, conversion, fidelity)


def _write_weights(folder: Path, conversion: Conversion, options: ConvertOptions, on_event: OnEvent) -> None:
    entries, stream = conversion.entries, _converted(conversion, options, on_event)
    if options.format == "npz":
        write_npz(folder, entries, stream)
    else:
        write_shards(folder, entries, stream, options.max_shard_bytes, {"format": "mlx"})


def _converted(
    conversion: Conversion, options: ConvertOptions, on_event: OnEvent
) -> Iterator[tuple[str, mx.array]]:
    """The result's tensors in order; each source tensor is let go as soon as it has been converted."""
    limit = mx.set_cache_limit(0)
    layers = _calibrated(conversion, options, on_event) if options.calibrate else iter(())
    tower, current = vision_prefix(conversion.checkpoint.config), -1
    ready: dict[str, Packed] = {}
    try:
        for number, one in enumerate(conversion.planned):
            layer = layer_number(one.name, tower) if options.calibrate else -1
            if layer != current:  # from the first of a layer's tensors on, before any of them is let go
                ready, current = next(layers), layer
            parts = ready[one.name] if one.name in ready else _plainly(one, conversion.tensors[one.name])
            del conversion.tensors[one.name]
            mx.eval(parts)
            yield from zip((entry.name for entry in one.entries), parts, strict=True)
            on_event(Progress("converting", number + 1, len(conversion.planned), unit="tensors"))
    finally:
        mx.set_cache_limit(limit)


def _plainly(one: Planned, x: mx.array) -> tuple[mx.array, ...]:
    x = x.astype(one.dtype)
    return (x,) if one.scheme is None else tuple(mx.quantize(x, **one.scheme.arguments()))


def _calibrated(
    conversion: Conversion, options: ConvertOptions, on_event: OnEvent
) -> Iterator[dict[str, Packed]]:
    """The vision encoder's quantized weights, layer by layer."""
    config, folder = conversion.checkpoint.config, conversion.checkpoint.resolved.folder
    quantized = {one.name: one.scheme for one in conversion.planned if one.scheme is not None}
    start = vision_prefix(config) + LAYERS
    schemes = {name: scheme for name, scheme in quantized.items() if name.startswith(start)}
    if others := len(quantized) - len(schemes):
        on_event(
            Notice(f"{others} weights of the text encoder are rounded plainly: pictures do not reach them")
        )
    native = NativeOptions(max_patches=MAX_PATCHES)
    processor = build_processor(folder, config, LoadOptions(native=native))
    pixels = read_pictures(options.calibrate, processor, on_event)
    dtype = getattr(mx, conversion.dtype)
    return Calibration(config, conversion.tensors, schemes, dtype, on_event).layers(pixels)


def _card_facts(conversion: Conversion, name: str, fidelity: Fidelity | None) -> CardFacts:
    checkpoint = conversion.checkpoint
    resolved = checkpoint.resolved
    names = (path.name for path in resolved.folder.iterdir())
    return CardFacts(
        name=name,
        config=checkpoint.config,
        parameters=conversion.parameters,
        layout=checkpoint.layout.name,
        dtype=conversion.dtype,
        bits_per_weight=conversion.bits_per_weight,
        nbytes=conversion.nbytes,
        version=__version__,
        repo=resolved.repo,
        revision=resolved.revision,
        source_card=read_card(resolved.folder),
        license_files=tuple(one for one in small_files(names) if one.startswith("LICENSE")),
        quantization=conversion.quantization_words,
        kept=conversion.kept,
        fidelity=fidelity.markdown() if fidelity else None,
    )


def _config_entry(conversion: Conversion) -> dict[str, Any]:
    entry = without_source(conversion.checkpoint.config.to_dict()) | {"dtype": conversion.dtype}
    if conversion.quantization is not None:
        entry["quantization"] = _quantization_entry(conversion)
        entry["quantization_config"] = entry["quantization"]  # the name under which transformers looks for it
    return entry


def without_source(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json without what described only the files it came from, in the encoders' parts too."""
    return {
        name: without_source(value) if isinstance(value, Mapping) else value
        for name, value in entry.items()
        if name not in OF_THE_SOURCE
    }


def _quantization_entry(conversion: Conversion) -> dict[str, Any]:
    """As mlx-lm writes it: the scheme of most modules, and those that differ by path."""
    quantization = conversion.quantization
    if quantization is None:
        return {}
    default = quantization.default.arguments()
    schemes = {one.name.removesuffix(".weight"): one.scheme for one in conversion.planned if one.scheme}
    others = {path: s.arguments() for path, s in schemes.items() if s != quantization.default}
    return {**default, **others}


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a configuration file, indented."""
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def copy_files(source: Path, folder: Path) -> None:
    """Preprocessor, tokenizer, licence: everything small but configuration and card, which are written anew.

    Raises:
        DamagedFileError: one of them is a link out of the folder.
    """
    for name in small_files(path.name for path in source.iterdir() if path.is_file()):
        if name not in (CONFIG, CARD):
            shutil.copyfile(inside(source, name), folder / name)


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


def one_by_one(tensors: dict[str, mx.array], stage: str, on_event: OnEvent) -> Iterator[tuple[str, mx.array]]:
    """The tensors in order, each let go when the next is asked for."""
    total = len(tensors)
    for number, name in enumerate(list(tensors)):
        on_event(Progress(stage, number + 1, total, unit="tensors"))  # nobody asks again after the last
        yield name, tensors.pop(name)
