"""`mlx-aimv2 convert`: a checkpoint of any published layout into this package's own format."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from .options import Revision, Weights
from .ui import say, screen, size, table, verb

if TYPE_CHECKING:
    from ..checkpoints.quantize import Scheme
    from ..conversion import Conversion

DEFAULTS = {
    "affine": (64, 4),
    "mxfp4": (32, 4),
    "nvfp4": (16, 4),
    "mxfp8": (32, 8),
}  # mode -> group size, bits
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@verb
def convert(
    hf_path: Annotated[
        str, typer.Option("--hf-path", "--model", help="A folder, a repository, or a short name.")
    ],
    mlx_path: Annotated[Path, typer.Option(help="The folder to write; it must not exist.")] = Path(
        "mlx_model"
    ),
    quantize: Annotated[bool, typer.Option("-q", "--quantize", help="Quantize the weights.")] = False,
    q_bits: Annotated[int | None, typer.Option(help="Bits per weight. [default: the mode's]")] = None,
    q_group_size: Annotated[int | None, typer.Option(help="Weights per scale. [default: the mode's]")] = None,
    q_mode: Annotated[str, typer.Option(help="affine, mxfp4, nvfp4 or mxfp8.")] = "affine",
    quant_predicate: Annotated[
        str | None, typer.Option(help="Mixed bits: mixed_2_6, mixed_3_4, mixed_3_6 or mixed_4_6.")
    ] = None,
    dequantize: Annotated[
        bool, typer.Option("-d", "--dequantize", help="Unpack a quantized source.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16. [default: as stored]")
    ] = None,
    max_shard_size: Annotated[str, typer.Option(help="Of one weight file, such as 500MB.")] = "5GB",
    revision: Revision = None,
    weights: Weights = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")] = False,
) -> None:
    """Convert a checkpoint of any published layout to this package's own format, and quantize it with -q."""
    from ..models.backend import require_mlx

    require_mlx()
    from ..conversion import ConvertOptions, prepare
    from ..conversion import convert as run

    wants_scheme = quantize or quant_predicate is not None
    if not wants_scheme and (q_bits or q_group_size or q_mode != "affine"):
        raise InputError("--q-bits, --q-group-size and --q-mode need -q")
    options = ConvertOptions(
        dtype=dtype,
        scheme=_scheme(q_mode, q_bits, q_group_size) if wants_scheme else None,
        quant_predicate=quant_predicate,
        dequantize=dequantize,
        max_shard_bytes=parse_size(max_shard_size),
        weights=weights,
    )
    with screen() as shown:
        if dry_run:
            _show(prepare(hf_path, options, revision, shown))
            return
        written = run(hf_path, mlx_path, revision=revision, options=options, on_event=shown)
    say(f"wrote {written}; try: mlx-aimv2 info {written}")


def _scheme(mode: str, bits: int | None, group_size: int | None) -> Scheme:
    from ..checkpoints.quantize import Scheme

    default_group, default_bits = DEFAULTS.get(mode, DEFAULTS["affine"])
    return Scheme(group_size or default_group, bits or default_bits, mode)


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


def _show(conversion: Conversion) -> None:
    """The plan of a conversion: one row for each kind of tensor, sizes before and after."""
    header = conversion.checkpoint.header
    groups: dict[tuple[str, str], list[int]] = {}
    for one in conversion.planned:
        name = re.sub(r"\.\d+\.", ".*.", one.name)
        what = f"{one.scheme.bits}-bit {one.scheme.mode}" if one.scheme else str(one.dtype).rpartition(".")[2]
        what += f" ({one.reason})" if one.reason else ""
        groups.setdefault((name, what), []).append(sum(entry.nbytes for entry in one.entries))
    rows = [(name, str(len(sizes)), size(sum(sizes)), what) for (name, what), sizes in groups.items()]
    table(("tensor", "count", "size", "becomes"), rows)
    say(f"layout {conversion.checkpoint.layout.name}, {len(header.tensors)} tensors, {size(header.nbytes)}")
    say(
        f"result {size(conversion.nbytes)}, {conversion.bits_per_weight:.2f} bits per weight; nothing was written"
    )
