"""Conversion of a checkpoint of any published layout to this package's own format.

The format is a folder as on the Hub: config.json with transformers' keys, transformers' tensor names, the patch
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
from typing import TYPE_CHECKING

import mlx.core as mx

from ..backend.device import without_cache
from ..backend.threads import computing
from ..checkpoints.file_names import CONFIG
from ..checkpoints.matching import dtype_name
from ..checkpoints.npz import write_npz
from ..checkpoints.shards import write_shards
from ..errors import Advice, Aimv2Error, NonFiniteError
from ..events import Notice, OnEvent, Progress, ignore, warn
from ..fidelity.compare import compare_checkpoints
from ..fidelity.outputs import make_sample
from ..fidelity.report import Fidelity
from ..loading import inspect
from ..processing.build import build_processor
from ..processing.image import NativeOptions
from ..publishing.card import CARD, model_card
from ..quantization.calibration import MAX_PATCHES, Calibration, calibrated_layers, read_images
from ..quantization.gptq import Packed
from ..quantization.recipes import LAYERS, layer_number, vision_prefix
from ..sources.paths import find_images
from ..storage.atomic import new_folder
from ..storage.json_files import write_json
from .options import ConvertOptions, MlxLmArguments
from .plan import Conversion, Planned, plan_conversion
from .target_folder import check_apart, check_space, config_entry, copy_files, source_facts, target_folder

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in `typing` since Python 3.11


def convert(
    hf_path: str | os.PathLike[str],
    mlx_path: str | os.PathLike[str] = "mlx_model",
    dtype: str | None = None,
    revision: str | None = None,
    *,
    options: ConvertOptions | None = None,
    on_event: OnEvent = warn,
    **mlx_lm: Unpack[MlxLmArguments],
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
        InputError: the source does not allow an option, or there are no images to calibrate or compare with.
        OutputError: the folder exists already, does not fit on the disk, or cannot be written.
        CheckpointError: the source is no checkpoint, or is damaged.
        TokenizerError: calibration needs the source's tokenizer files, which are missing or wrong.
        NonFiniteError: a tensor to quantize holds NaN or infinity.
        HubError: the Hub does not deliver the source.
    """
    options = ConvertOptions.from_mlx_lm(options, dtype=dtype, **mlx_lm)
    return convert_and_report(hf_path, mlx_path, options, revision, on_event).folder


@dataclass(frozen=True)
class Converted:
    """The result of a conversion.

    Attributes:
        folder: the checkpoint.
        plan: the plan that was carried out.
        fidelity: the comparison of source and result; None if ``options`` ask for none, or it failed.
        not_compared: why the comparison failed.
    """

    folder: Path
    plan: Conversion
    fidelity: Fidelity | None = None
    not_compared: Aimv2Error | None = None


@computing
def convert_and_report(
    hf_path: str | os.PathLike[str],
    mlx_path: str | os.PathLike[str],
    options: ConvertOptions,
    revision: str | None = None,
    on_event: OnEvent = warn,
) -> Converted:
    """Do what `convert` does, and return plan and comparison too. A comparison that fails does not stop it."""
    target = target_folder(mlx_path, options.force)
    # wrong names of images are refused before anything is downloaded
    calibrate, report_images = (
        _find_images(names, options, on_event) for names in (options.calibrate, options.report_images)
    )
    options = dataclasses.replace(options, calibrate=calibrate, report_images=report_images)
    sample = make_sample(options.report_images or None) if options.report else None
    fidelity, problem = None, None
    with new_folder(target, replace=options.force) as folder:
        conversion = plan_conversion(hf_path, options, revision, on_event)
        check_apart(target, conversion.checkpoint.resolved.folder)
        check_space(folder, conversion.nbytes)
        _check_small_files(conversion, on_event)
        if names := conversion.unquantizable:
            on_event(Notice(f"not quantized, although asked for: {names}"))
        _write_weights(folder, conversion, options, on_event)
        write_json(folder / CONFIG, config_entry(conversion))
        copy_files(conversion.checkpoint, folder)
        if sample is not None:
            try:
                converted = inspect(folder, on_event=on_event)
                fidelity = compare_checkpoints(
                    conversion.checkpoint, converted, sample, options.resolution, on_event
                )
            except Aimv2Error as error:
                problem = error
        _write_card(folder, conversion, options.card_name or target.name, fidelity)
    if fidelity is not None:
        side = dataclasses.replace(fidelity.converted, name=str(target))  # not the folder's partial name
        fidelity = dataclasses.replace(fidelity, converted=side)
    return Converted(target, conversion, fidelity, problem)


def _find_images(names: Sequence[str], options: ConvertOptions, on_event: OnEvent) -> tuple[str, ...]:
    scan = find_images(names, options.exclude)
    for notice in scan.notices():
        on_event(Notice(notice))
    return scan.images


def _write_card(folder: Path, conversion: Conversion, name: str, fidelity: Fidelity | None) -> None:
    facts = source_facts(conversion.checkpoint, name, conversion.parameters, conversion.nbytes)
    facts = dataclasses.replace(
        facts,
        dtype=dtype_name(conversion.dtype),
        quantization=conversion.quantization_name,
        kept=conversion.kept,
        fidelity=fidelity.markdown() if fidelity else None,
        unpacked_from=conversion.unpacked_from,
    )
    (folder / CARD).write_text(model_card(facts), encoding="utf-8")


def _check_small_files(conversion: Conversion, on_event: OnEvent) -> None:
    """Report the small files that the source lacks, and the result will lack."""
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
    """The result's tensors in order; each source tensor is freed as soon as it is converted."""
    tensors, done = conversion.open(), 0
    tower = vision_prefix(conversion.checkpoint.config)
    layers = _calibrated(conversion, tensors, options, on_event) if options.calibrate else iter(())
    for layer, members in groupby(conversion.planned, key=lambda tensor: layer_number(tensor.name, tower)):
        calibrated = next(layers) if options.calibrate and layer >= 0 else {}
        for planned in members:
            arrays = calibrated.get(planned.name) or _cast_or_quantized(planned, tensors[planned.name])
            del tensors[planned.name]
            mx.eval(arrays)
            done += 1
            on_event(Progress("converting", done, len(conversion.planned), unit="tensors"))
            # last: the writer may not ask again
            yield from zip((entry.name for entry in planned.entries), arrays, strict=True)


def _cast_or_quantized(planned: Planned, x: mx.array) -> tuple[mx.array, ...]:
    """A tensor as it is written: cast, and rounded to the nearest if it is quantized."""
    x = x.astype(planned.dtype)
    if planned.scheme is None:
        return (x,)
    if not mx.isfinite(x).all():
        raise NonFiniteError(
            f"{planned.name} holds NaN or infinity in {planned.dtype}",
            Advice(
                "the checkpoint is damaged, or needs {}",
                "dtype",
                "bfloat16",
                otherwise="the checkpoint is damaged, or needs bfloat16",
            ),
        )
    return tuple(mx.quantize(x, **planned.scheme.arguments()))


def _calibrated(
    conversion: Conversion, tensors: Mapping[str, mx.array], options: ConvertOptions, on_event: OnEvent
) -> Iterator[dict[str, Packed]]:
    """The vision encoder's quantized weights, layer by layer."""
    checkpoint = conversion.checkpoint
    quantized = {tensor.name: tensor.scheme for tensor in conversion.planned if tensor.scheme is not None}
    start = vision_prefix(checkpoint.config) + LAYERS
    schemes = {name: scheme for name, scheme in quantized.items() if name.startswith(start)}
    if others := len(quantized) - len(schemes):
        on_event(
            Notice(f"{others} weights of the text encoder are rounded plainly: images do not reach them")
        )
    processor = build_processor(
        checkpoint.resolved.folder,
        checkpoint.config,
        native=NativeOptions(max_patches=MAX_PATCHES),
        resized=checkpoint.resampled,
        on_event=ignore,  # `_check_small_files` has given these notices
    )
    pixels = read_images(options.calibrate, processor, on_event)
    calibration = Calibration(checkpoint.config, schemes, conversion.dtype, pixels)
    return calibrated_layers(calibration, tensors, on_event)
