"""`mlx-aimv2 evaluate`: how good a checkpoint is; with --compare, what a conversion did to it."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from . import options
from .bulk import pictures
from .ui import NOT_ALL_DONE, put, say, screen, table, verb

if TYPE_CHECKING:
    from ..fidelity_report import Fidelity


@verb
def evaluate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURES...",
            help="Pictures, folders, patterns; - for a list on stdin; none for built-in drawings.",
        ),
    ] = [],  # noqa: B006 - typer makes a new list each time
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="ORIGINAL CONVERTED",
            help="Two checkpoints of one model: a folder, a repository, a short name.",
        ),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Show every layer, not only those with the largest error.")
    ] = False,
    json: options.Json = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the original's repository.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="The weight file of the original to read, where it holds several.")
    ] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
    keep_quantized: options.KeepQuantized = False,
    decode: options.Decode = options.DECODE,
    background: options.Background = options.BACKGROUND,
    max_megapixels: options.MaxMegapixels = options.MAX_MEGAPIXELS,
    min_patches: options.MinPatches = options.MIN_PATCHES,
    max_patches: options.MaxPatches = options.MAX_PATCHES,
) -> None:
    """Say what a conversion changed: embeddings, layers, nearest neighbours, labels, size and speed."""
    if compare is None:
        raise InputError("nothing to evaluate: give --compare ORIGINAL CONVERTED")
    names = pictures(inputs) if inputs else None
    from ..models.backend import require_mlx, use_device

    require_mlx()
    from ..fidelity import compare as run

    if device:
        use_device(device)
    settings = options.load_options(
        dtype=dtype,
        keep_quantized=keep_quantized,
        weights=weights,
        decode=decode,
        background=background,
        max_megapixels=max_megapixels,
        min_patches=min_patches,
        max_patches=max_patches,
    )
    with screen() as shown:
        fidelity = run(*compare, names, revision=revision, options=settings, on_event=shown)
    if json:
        put(jsonlib.dumps(fidelity.to_dict(), indent=2))
    else:
        show(fidelity, layers)
    if shown.skipped:
        raise SystemExit(NOT_ALL_DONE)


def show(fidelity: Fidelity, every_layer: bool) -> None:
    """A comparison as two tables: what there is to say of each checkpoint, and the layers."""
    from ..fidelity_report import percent

    names = ("checkpoint", fidelity.original.name, fidelity.converted.name)
    table(("what", "original", "converted"), [names, *fidelity.rows()])
    chosen = fidelity.layers if every_layer else fidelity.worst_layers
    table(("layer", "relative error"), [(name, percent(error)) for name, error in chosen])
    kind = "built-in drawings" if fidelity.drawn else "pictures"
    few = f" on {fidelity.layer_pictures} of them" if fidelity.layer_pictures < fidelity.pictures else ""
    say(f"compared on {fidelity.pictures} {kind}, layer by layer{few}")
    if len(chosen) < len(fidelity.layers):
        say(
            f"these are the {len(chosen)} of {len(fidelity.layers)} layers with the largest error; --layers shows all"
        )
