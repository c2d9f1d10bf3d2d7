"""`mlx-aimv2 convert`: a checkpoint of any published layout into this package's own format."""

from __future__ import annotations

import json as jsonlib
import re
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..messages import counted, size
from .completion import DTYPES, Q_BITS, Q_GROUP_SIZES, Q_MODES, RECIPES, WEIGHT_FORMATS, checkpoints, choices
from .guard import NOT_ALL_DONE, verb
from .output import put, say
from .parameters import Device, Exclude, Force, ImageSize, InterpolatePositions, Json, Revision, Weights
from .screen import screen
from .tables import table

if TYPE_CHECKING:
    from ..conversion.convert import Converted
    from ..conversion.plan import Conversion

SHARD_SIZE = "5GB"
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@verb
def convert(
    hf_path: Annotated[
        str,
        typer.Option(
            "--hf-path",
            "--model",
            help="A folder, a repository, or a short name.",
            autocompletion=checkpoints,
        ),
    ],
    mlx_path: Annotated[Path, typer.Option(help="The folder to write.")] = Path("mlx_model"),
    force: Force = False,
    quantize: Annotated[bool, typer.Option("-q", "--quantize", help="Quantize the weights.")] = False,
    q_bits: Annotated[
        int | None,
        typer.Option(help="With -q: bits per weight. [default: the mode's]", autocompletion=choices(Q_BITS)),
    ] = None,
    q_group_size: Annotated[
        int | None,
        typer.Option(
            help="With -q: weights per scale. [default: the mode's]", autocompletion=choices(Q_GROUP_SIZES)
        ),
    ] = None,
    q_mode: Annotated[
        str | None,
        typer.Option(
            help="With -q: affine, mxfp4, nvfp4 or mxfp8. [default: affine]", autocompletion=choices(Q_MODES)
        ),
    ] = None,
    quant_predicate: Annotated[
        str | None,
        typer.Option(
            help="With -q: mixed bits, mixed_2_6, mixed_3_4, mixed_3_6 or mixed_4_6.",
            autocompletion=choices(RECIPES),
        ),
    ] = None,
    dequantize: Annotated[
        bool, typer.Option("-d", "--dequantize", help="Unpack a quantized source.")
    ] = False,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, float16 or bfloat16. [default: as stored]", autocompletion=choices(DTYPES)
        ),
    ] = None,
    calibrate: Annotated[
        list[str],
        typer.Option(
            metavar="IMAGES",
            help="With -q: quantize the vision encoder for these images (a folder, or a pattern in quotes; some"
            " dozens are used) instead of rounding plainly. Slower, and closer to the original in 2 to 4 bits.",
        ),
    ] = [],  # noqa: B006 - typer makes a new list each time
    format: Annotated[
        str,
        typer.Option(help="Of the weight files: safetensors or npz.", autocompletion=choices(WEIGHT_FORMATS)),
    ] = "safetensors",
    max_shard_size: Annotated[
        str | None, typer.Option(help=f"Of one weight file, such as 500MB. [default: {SHARD_SIZE}]")
    ] = None,
    revision: Revision = None,
    weights: Weights = None,
    interpolate_positions: InterpolatePositions = False,
    image_size: ImageSize = None,
    report: Annotated[
        bool, typer.Option("--report", help="Compare result and source, on the screen and in the model card.")
    ] = False,
    report_images: Annotated[
        list[str],
        typer.Option(metavar="IMAGES", help="What to compare them on. [default: built-in drawings]"),
    ] = [],  # noqa: B006
    exclude: Exclude = [],  # noqa: B006
    upload_repo: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload the result to the Hugging Face Hub.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="With --upload-repo: so that others cannot see it.")
    ] = False,
    device: Device = None,
    json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")] = False,
) -> None:
    """Convert a checkpoint of any published layout to this package's own format, and quantize it with -q."""
    from ..backend.device import require_mlx, use_device

    require_mlx()
    from ..conversion.convert import convert_and_report
    from ..conversion.options import ConvertOptions
    from ..conversion.plan import plan_conversion
    from ..conversion.target_folder import target_folder
    from ..publishing.upload import check_access, check_name, upload
    from ..sources.paths import find_images

    if format == "npz" and max_shard_size is not None:
        raise InputError("--format npz is one file: leave --max-shard-size out")
    if private and upload_repo is None:
        raise InputError("--private needs --upload-repo")
    if upload_repo is not None:
        check_name(upload_repo)
    if device:
        use_device(device)
    options = ConvertOptions(
        max_shard_bytes=parse_size(max_shard_size or SHARD_SIZE),
        format=format,
        weights=weights,
        interpolate_positions=interpolate_positions,
        image_size=image_size,
        calibrate=tuple(calibrate),
        report=report or bool(report_images),
        report_images=tuple(report_images),
        exclude=tuple(exclude),
        card_name=upload_repo,
        force=force,
    )
    options = ConvertOptions.from_mlx_lm(
        options,
        dtype=dtype,
        quantize=quantize,
        q_bits=q_bits,
        q_group_size=q_group_size,
        q_mode=q_mode,
        quant_predicate=quant_predicate,
        dequantize=dequantize,
    )
    with screen() as shown:
        if dry_run:
            target_folder(mlx_path, force)
            for notice in find_images([*calibrate, *report_images], exclude).notices():
                say(notice)
            plan = plan_conversion(hf_path, options, revision, shown)
            put(jsonlib.dumps(_plan_entry(plan), indent=2)) if json else _show_plan(plan)
            return
        if upload_repo is not None:  # before hours of work
            target_folder(mlx_path, force)
            check_access(upload_repo, private=private)
        result = convert_and_report(hf_path, mlx_path, options, revision, shown)
        skipped = shown.skipped
    _show_result(result, json)
    if upload_repo is not None:
        with screen() as shown:
            put(upload(mlx_path, upload_repo, private=private, on_event=shown))
    if skipped or result.not_compared is not None:
        raise SystemExit(NOT_ALL_DONE)


def parse_size(text: str) -> int:
    """Bytes of a size such as `5GB`, `500MB` or `123`.

    Raises:
        InputError: it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?B?)", text.strip().upper())
    unit = match and match[2].removesuffix("B") + ("B" if match[2].removesuffix("B") else "")
    if match is None or unit not in UNITS or float(match[1]) * UNITS[unit] < 1:
        raise InputError(f"{text!r} is not a size: write 5GB or 500MB")
    return int(float(match[1]) * UNITS[unit])


def _show_plan(conversion: Conversion) -> None:
    """The plan of a conversion: one row for each kind of tensor, sizes before and after."""
    header = conversion.checkpoint.header
    groups: dict[tuple[str, str], list[int]] = {}
    for one in conversion.planned:
        name = re.sub(r"\.\d+\.", ".*.", one.name)
        what = f"{one.scheme.bits}-bit {one.scheme.mode}" if one.scheme else str(one.dtype).rpartition(".")[2]
        what += f" ({one.reason})" if one.reason else ""
        groups.setdefault((name, what), []).append(sum(entry.nbytes for entry in one.entries))
    rows = [(name, str(len(sizes)), size(sum(sizes)), what) for (name, what), sizes in groups.items()]
    table(("tensor", "count", "size", "becomes"), rows, paths=("tensor",))
    tensors = counted(len(header.tensors), "tensor")
    say(f"layout {conversion.checkpoint.layout.name}, {tensors}, {size(header.nbytes)}")
    say(
        f"result {size(conversion.nbytes)}, {conversion.bits_per_weight:.2f} bits per weight; nothing was written"
    )


def _plan_entry(plan: Conversion) -> dict[str, Any]:
    return {
        "layout": plan.checkpoint.layout.name,
        "dtype": plan.dtype,
        "quantization": plan.quantization_name,
        "bytes_before": plan.checkpoint.header.nbytes,
        "bytes": plan.nbytes,
        "bits_per_weight": plan.bits_per_weight,
        "not_quantized": {one.name: one.reason for one in plan.planned if one.reason is not None},
    }


def _show_result(result: Converted, json: bool) -> None:
    """What was written, what was not quantized, and the comparison."""
    from .evaluate import show

    if json:
        fidelity = result.fidelity.to_dict() if result.fidelity else None
        put(
            jsonlib.dumps(
                {"path": str(result.folder), **_plan_entry(result.plan), "fidelity": fidelity}, indent=2
            )
        )
    elif result.fidelity is not None:
        source, target = quote(result.fidelity.original.name), quote(str(result.folder))
        show(result.fidelity, False, f"evaluate --compare {source} {target} --layers")
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
