"""`mlx-aimv2 convert`: a checkpoint of any published layout into this package's own format."""

from __future__ import annotations

import json as jsonlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ..conversion.options import ConvertOptions
from ..errors import InputError
from ..messages import counted, size
from ..options.fields import REQUIRED, like, option, options_from
from ..processing.options import READING
from .completion import Q_BITS, Q_GROUP_SIZES, Q_MODES, RECIPES, checkpoints, choices
from .guard import NOT_ALL_DONE, verb
from .model_options import CheckpointOptions, DeviceOptions, JsonOptions
from .output import put, say
from .screen import Screen, screen
from .tables import table

if TYPE_CHECKING:
    from ..conversion.convert import Converted
    from ..conversion.plan import Conversion

SHARD_SIZE = "5GB"
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?")
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True)
class PathOptions:
    """The checkpoint to convert, and the folder to write."""

    hf_path: str = option(
        REQUIRED,
        "A folder, a repository, or a short name.",
        flags=("--hf-path", "--model"),
        autocompletion=checkpoints,
    )
    mlx_path: Path = option(Path("mlx_model"), "The folder to write.")


@dataclass(frozen=True)
class QuantizeOptions:
    """Data types of the result, under the names that mlx-lm gives the options."""

    quantize: bool = option(False, "Quantize the weights.", flags=("-q", "--quantize"))
    q_bits: int | None = option(
        None, "With -q: bits per weight. [default: the mode's]", autocompletion=choices(Q_BITS)
    )
    q_group_size: int | None = option(
        None, "With -q: weights per scale. [default: the mode's]", autocompletion=choices(Q_GROUP_SIZES)
    )
    q_mode: str | None = option(
        None, "With -q: affine, mxfp4, nvfp4 or mxfp8. [default: affine]", autocompletion=choices(Q_MODES)
    )
    quant_predicate: str | None = like(ConvertOptions, "quant_predicate", autocompletion=choices(RECIPES))
    dequantize: bool = like(ConvertOptions, "dequantize")
    dtype: str | None = like(ConvertOptions, "dtype")


@dataclass(frozen=True)
class ResultOptions:
    """The files to write, the comparison with the source, and the upload."""

    calibrate: tuple[str, ...] = like(ConvertOptions, "calibrate")
    format: str = like(ConvertOptions, "format")
    max_shard_size: str | None = option(
        None, f"Largest size of a weight file, such as 500MB. [default: {SHARD_SIZE}]"
    )
    report: bool = like(ConvertOptions, "report")
    report_images: tuple[str, ...] = like(ConvertOptions, "report_images")
    exclude: tuple[str, ...] = like(ConvertOptions, "exclude", panel=READING)
    upload_repo: str | None = option(None, "Upload the result to the Hugging Face Hub.", metavar="OWNER/NAME")
    private: bool = option(False, "With --upload-repo: make the repository private.")
    force: bool = like(ConvertOptions, "force")
    json: bool = like(JsonOptions, "json")
    dry_run: bool = option(False, "Show what would be done.")

    def __post_init__(self) -> None:
        if self.format == "npz" and self.max_shard_size is not None:
            raise InputError("--format npz is one file: leave --max-shard-size out")
        if self.private and self.upload_repo is None:
            raise InputError("--private needs --upload-repo")


@verb
def convert(
    *,
    paths: PathOptions,
    quantization: QuantizeOptions,
    result: ResultOptions,
    source: CheckpointOptions,
    device: DeviceOptions,
) -> None:
    """Convert a checkpoint of any published layout to this package's own format, and quantize it with -q."""
    from ..backend.device import require_mlx

    require_mlx()
    from ..conversion.convert import convert_and_report
    from ..conversion.target_folder import target_folder
    from ..publishing.upload import check_access, check_repo_name, upload

    hf_path, mlx_path, repo = paths.hf_path, paths.mlx_path, result.upload_repo
    plain = options_from(
        ConvertOptions,
        source,
        result,
        max_shard_bytes=parse_size(result.max_shard_size),
        report=result.report or bool(result.report_images),
        card_name=repo,
    )
    options = ConvertOptions.from_mlx_lm(plain, **vars(quantization))
    if repo is not None:
        check_repo_name(repo)
    device.use_device()
    with screen() as events:
        if result.dry_run:
            target_folder(mlx_path, result.force)
            _show_plan(hf_path, options, source.revision, result.json, events)
            return
        if repo is not None:  # before hours of work
            target_folder(mlx_path, result.force)
            check_access(repo, private=result.private)
        converted = convert_and_report(hf_path, mlx_path, options, source.revision, events)
        skipped = events.skipped
    _show_result(converted, result.json)
    if repo is not None:
        with screen() as events:
            put(upload(mlx_path, repo, private=result.private, on_event=events))
    if skipped or converted.not_compared is not None:
        raise SystemExit(NOT_ALL_DONE)


def parse_size(text: str | None) -> int:
    """Bytes of a size such as `5GB`, `500MB` or `123`; None for the default.

    Raises:
        InputError: it is no size.
    """
    text = SHARD_SIZE if text is None else text
    match = SIZE.fullmatch(text.strip().upper())
    nbytes = float(match[1]) * UNITS[match[2]] if match else 0
    if not 1 <= nbytes < math.inf:
        raise InputError(f"{text!r} is not a size: write 5GB or 500MB")
    return int(nbytes)


def _show_plan(
    hf_path: str, options: ConvertOptions, revision: str | None, json: bool, events: Screen
) -> None:
    """Print what a conversion would do: a row for each kind of tensor, sizes before and after."""
    from ..conversion.plan import plan_conversion
    from ..sources.paths import find_images

    for notice in find_images([*options.calibrate, *options.report_images], options.exclude).notices():
        say(notice)
    conversion = plan_conversion(hf_path, options, revision, events)
    if json:
        put(jsonlib.dumps(_plan_entry(conversion), indent=2))
        return
    header = conversion.checkpoint.header
    groups: dict[tuple[str, str], list[int]] = {}
    for tensor in conversion.planned:
        name = re.sub(r"\.\d+\.", ".*.", tensor.name)
        scheme = tensor.scheme
        result = f"{scheme.bits}-bit {scheme.mode}" if scheme else str(tensor.dtype).rpartition(".")[2]
        result += f" ({tensor.reason})" if tensor.reason else ""
        groups.setdefault((name, result), []).append(sum(entry.nbytes for entry in tensor.entries))
    rows = [(name, str(len(sizes)), size(sum(sizes)), result) for (name, result), sizes in groups.items()]
    table(("tensor", "count", "size", "becomes"), rows, paths=("tensor",))
    tensors = counted(len(header.tensors), "tensor")
    say(f"layout {conversion.checkpoint.layout.name}, {tensors}, {size(header.nbytes)}")
    say(
        f"result {size(conversion.nbytes)}, {conversion.bits_per_weight:.2f} bits per weight; nothing was written"
    )


def _plan_entry(plan: Conversion) -> dict[str, Any]:
    from ..checkpoints.matching import dtype_name

    return {
        "layout": plan.checkpoint.layout.name,
        "dtype": dtype_name(plan.dtype),
        "quantization": plan.quantization_name,
        "bytes_before": plan.checkpoint.header.nbytes,
        "bytes": plan.nbytes,
        "bits_per_weight": plan.bits_per_weight,
        "not_quantized": {x.name: x.reason for x in plan.planned if x.reason is not None},
    }


def _show_result(result: Converted, json: bool) -> None:
    """Print the files, the tensors that are not quantized, and the comparison."""
    from .compare import show

    if json:
        fidelity = result.fidelity.to_dict() if result.fidelity else None
        put(
            jsonlib.dumps(
                {"path": str(result.folder), **_plan_entry(result.plan), "fidelity": fidelity}, indent=2
            )
        )
    elif result.fidelity is not None:
        source, target = quote(result.fidelity.original.name), quote(str(result.folder))
        show(result.fidelity, False, f"compare {source} {target} --layers")
    if result.not_compared is not None:
        say(f"result and source were not compared: {result.not_compared}")
    kept = sum(map(len, result.plan.kept.values()))
    if kept:
        which = "1 small or sensitive tensor is" if kept == 1 else f"{kept} small or sensitive tensors are"
        say(f"{which} not quantized: the model card names them, and why")
    plan = result.plan
    say(
        f"wrote {result.folder}: {size(plan.nbytes)}, {plan.bits_per_weight:.2f} bits per weight;"
        f" try: mlx-aimv2 info {quote(str(result.folder))}"
    )
