"""From any published layout to a checkpoint in this package's own format, and back.

The format is a folder as on the Hub: transformers' keys in config.json, transformers' tensor names, the patch
kernel as (D, p, p, C), metadata `{"format": "mlx"}`, quantized weights as mlx-lm writes them, and the preprocessor,
tokenizer and licence of the source. Tensors are read, converted and written one by one.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import mlx.core as mx

from ..backend.device import without_cache
from ..backend.threads import computing
from ..checkpoints.file_names import CONFIG
from ..checkpoints.npz import write_npz
from ..checkpoints.shards import write_shards
from ..errors import Advice, Aimv2Error, NonFiniteError
from ..events import Notice, OnEvent, Progress, ignore
from ..fidelity.compare import compare
from ..fidelity.report import Fidelity
from ..fidelity.trial_run import make_sample
from ..loading import LoadOptions
from ..processing.build import build_processor
from ..publishing.card import CARD, model_card
from ..quantization.calibration import Calibration, calibrated_layers, prepare_images
from ..quantization.gptq import Packed
from ..sources.paths import find_images
from ..storage.atomic import new_folder
from ..storage.json_files import write_json
from .options import Conversion, ConvertOptions, prepare
from .plan import LAYERS, Planned, layer_number, vision_prefix
from .target_folder import card_facts, check_apart, check_space, config_entry, copy_files, target_folder


def convert(
    hf_path: str | os.PathLike[str],
    mlx_path: str | os.PathLike[str] = "mlx_model",
    dtype: str | None = None,
    revision: str | None = None,
    *,
    options: ConvertOptions | None = None,
    on_event: OnEvent = ignore,
    **mlx_lm: Any,
) -> Path:
    """Write a checkpoint in this package's own format. The names of the arguments are mlx-lm's.

    Args:
        hf_path: a folder, a repository or a short name; any published layout.
        mlx_path: the folder to write; it must not exist (but see ``options.force``), and appears whole or not at all.
        dtype: float32, float16 or bfloat16; None for what ``options`` say, or what the source is stored in.
        revision: branch, tag or commit of the repository.
        options: size of the files, calibration, report, and the rest.
        on_event: called with progress and notices.
        **mlx_lm: mlx-lm's other arguments, such as ``quantize=True, q_bits=4``; see `ConvertOptions.from_mlx_lm`.
            They override ``options``.

    Returns:
        The folder.

    Raises:
        InputError: an option that the source does not allow, or no images to calibrate or compare with.
        OutputError: the folder exists already, does not fit on the disk, or cannot be written.
        CheckpointError: the source is no checkpoint, or is damaged.
        TokenizerError: the comparison or calibration needs the source's tokenizer files, which are missing or wrong.
        NonFiniteError: a tensor that is to be quantized holds NaN or infinity.
        HubError: the Hub does not deliver the source.
    """
    options = ConvertOptions.from_mlx_lm(options, dtype=dtype, **mlx_lm)
    return convert_and_report(hf_path, mlx_path, options, revision, on_event).folder


@dataclass(frozen=True)
class Converted:
    """What a conversion left.

    Attributes:
        folder: the checkpoint.
        plan: what was worked out before.
        fidelity: the comparison of source and result, if one was asked for and could be made.
        not_compared: why it could not be made.
    """

    folder: Path
    plan: Conversion
    fidelity: Fidelity | None = None
    not_compared: Aimv2Error | None = None


def _found(names: Sequence[str], exclude: Sequence[str], on_event: OnEvent) -> tuple[str, ...]:
    """The images meant by these names."""
    scan = find_images(names, exclude)
    for notice in scan.notices():
        on_event(Notice(notice))
    return scan.images


@computing
def convert_and_report(
    hf_path: str | os.PathLike[str],
    mlx_path: str | os.PathLike[str],
    options: ConvertOptions,
    revision: str | None = None,
    on_event: OnEvent = ignore,
) -> Converted:
    """`convert`, and what it found out on the way; takes, returns and raises the like.

    A comparison that fails costs no more than itself.
    """
    target = target_folder(mlx_path, options.force)
    # what is wrong with the names of images is found before anything is downloaded
    images = {
        name: _found(getattr(options, name), options.exclude, on_event)
        for name in ("calibrate", "report_images")
    }
    options = dataclasses.replace(options, **images)  # type: ignore[arg-type]
    if options.report:
        make_sample(options.report_images or None)
    with new_folder(target, replace=options.force) as folder:
        conversion = prepare(hf_path, options, revision, on_event)
        check_apart(target, conversion.checkpoint.resolved.folder)
        check_space(folder, conversion.nbytes)
        _check_small_files(conversion, on_event)
        if odd := conversion.odd:
            on_event(Notice(f"not quantized, although asked for: {odd}"))
        _write_weights(folder, conversion, options, on_event)
        write_json(folder / CONFIG, config_entry(conversion))
        copy_files(conversion.checkpoint, folder)
        fidelity, problem = _compared(hf_path, folder, conversion, options, on_event)
        facts = card_facts(conversion, options.card_name or target.name, fidelity)
        (folder / CARD).write_text(model_card(facts), encoding="utf-8")
    if fidelity is not None:
        side = dataclasses.replace(fidelity.converted, name=str(target))  # not the folder's partial name
        fidelity = dataclasses.replace(fidelity, converted=side)
    return Converted(target, conversion, fidelity, problem)


def _compared(
    hf_path: str | os.PathLike[str],
    folder: Path,
    conversion: Conversion,
    options: ConvertOptions,
    on_event: OnEvent,
) -> tuple[Fidelity | None, Aimv2Error | None]:
    """The comparison that was asked for, or why there is none."""
    if not options.report:
        return None, None
    revision = conversion.checkpoint.resolved.revision  # a branch may have moved on meanwhile
    images = options.report_images or None
    weights = LoadOptions(
        weights=options.weights,
        interpolate_positions=options.interpolate_positions,
        image_size=options.image_size,
    )
    try:
        return compare(hf_path, folder, images, revision=revision, options=weights, on_event=on_event), None
    except Aimv2Error as error:
        return None, error


def _check_small_files(conversion: Conversion, on_event: OnEvent) -> None:
    """Say what the result will lack."""
    checkpoint = conversion.checkpoint
    try:
        folder, config = checkpoint.resolved.folder, checkpoint.config
        build_processor(folder, config, resized=checkpoint.resampled, on_event=on_event)
    except Aimv2Error as error:
        on_event(Notice(f"the result will lack what its source lacks: {error}"))


def _write_weights(folder: Path, conversion: Conversion, options: ConvertOptions, on_event: OnEvent) -> None:
    entries, stream = conversion.entries, _converted(conversion, options, on_event)
    with without_cache():
        if options.format == "npz":
            write_npz(folder, entries, stream)
        else:
            write_shards(folder, entries, stream, options.max_shard_bytes, {"format": "mlx"})


def _converted(
    conversion: Conversion, options: ConvertOptions, on_event: OnEvent
) -> Iterator[tuple[str, mx.array]]:
    """The result's tensors in order; each source tensor is let go as soon as it has been converted."""
    tensors, done = conversion.open(), 0
    tower = vision_prefix(conversion.checkpoint.config)
    layers = _calibrated(conversion, tensors, options, on_event) if options.calibrate else iter(())
    for layer, members in groupby(conversion.planned, key=lambda one: layer_number(one.name, tower)):
        ready = next(layers) if options.calibrate and layer >= 0 else {}
        for one in members:
            parts = ready.get(one.name) or _plainly(one, tensors[one.name])
            del tensors[one.name]
            mx.eval(parts)
            done += 1
            on_event(Progress("converting", done, len(conversion.planned), unit="tensors"))
            yield from zip(
                (entry.name for entry in one.entries), parts, strict=True
            )  # perhaps not asked again


def _plainly(one: Planned, x: mx.array) -> tuple[mx.array, ...]:
    """A tensor as it is written: cast, and rounded to the nearest if it is quantized.

    Raises:
        NonFiniteError: it is quantized and holds NaN or infinity, which no code stands for.
    """
    x = x.astype(one.dtype)
    if one.scheme is None:
        return (x,)
    if not mx.isfinite(x).all():
        raise NonFiniteError(
            f"{one.name} holds NaN or infinity in {one.dtype}",
            Advice(
                "the checkpoint is damaged, or needs {}",
                "dtype",
                "bfloat16",
                otherwise="the checkpoint is damaged, or needs bfloat16",
            ),
        )
    return tuple(mx.quantize(x, **one.scheme.arguments()))


def _calibrated(
    conversion: Conversion, tensors: Mapping[str, mx.array], options: ConvertOptions, on_event: OnEvent
) -> Iterator[dict[str, Packed]]:
    """The vision encoder's quantized weights, layer by layer."""
    checkpoint = conversion.checkpoint
    quantized = {one.name: one.scheme for one in conversion.planned if one.scheme is not None}
    start = vision_prefix(checkpoint.config) + LAYERS
    schemes = {name: scheme for name, scheme in quantized.items() if name.startswith(start)}
    if others := len(quantized) - len(schemes):
        on_event(
            Notice(f"{others} weights of the text encoder are rounded plainly: images do not reach them")
        )
    folder, config = checkpoint.resolved.folder, checkpoint.config
    pixels = prepare_images(options.calibrate, folder, config, on_event, checkpoint.resampled)
    calibration = Calibration(checkpoint.config, schemes, getattr(mx, conversion.dtype), pixels)
    return calibrated_layers(calibration, tensors, on_event)
