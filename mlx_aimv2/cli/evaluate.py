"""`mlx-aimv2 evaluate`: how good a model is on labels or captions; with --compare, what a conversion did to it."""

from __future__ import annotations

import dataclasses
import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..datasets.options import Columns
from ..errors import InputError
from ..messages import counted
from . import parameters as options
from .completion import checkpoints, choices
from .evaluating import DATA_OPTIONS, SPLITS, Request, check_request, evaluate_data
from .guard import NOT_ALL_DONE, verb
from .jobs import images
from .output import advise, put, say
from .screen import screen
from .tables import table
from .trained_folders import base_of

if TYPE_CHECKING:
    from ..fidelity.report import Fidelity

LABELLED, COMPARING = "Labelled images", "Comparing"
EXACT = "exact"  # as in training


@verb
def evaluate(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES...",
            help="With --compare: images, folders, patterns; - for a list on stdin; none for built-in drawings.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Labels: a folder per class, train/ and val/ folders, a table (CSV, JSON, Parquet). Captions: such a"
            " table, or a .txt beside each image.",
            rich_help_panel=LABELLED,
        ),
    ] = None,
    adapter_path: Annotated[
        Path | None,
        typer.Option(
            help="What `finetune` wrote; without it, the class names are zero-shot labels.",
            rich_help_panel=LABELLED,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A folder, a repository, a short name. [default: the base of the adapter, else "
            f"{options.DEFAULT}]",
            autocompletion=checkpoints,
            rich_help_panel=LABELLED,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="val, test, train or all. [default: what training held out; of other data val, test or all]",
            autocompletion=choices(SPLITS),
            rich_help_panel=LABELLED,
        ),
    ] = None,
    val_fraction: Annotated[
        float | None,
        typer.Option(
            help="Part to hold out as val, where the data has none.",
            rich_help_panel=LABELLED,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="What chooses that part.", rich_help_panel=LABELLED),
    ] = None,
    image_column: Annotated[
        str | None,
        typer.Option(
            help="Column of a table with the path. [default: as it is called]", rich_help_panel=LABELLED
        ),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Column with the label, or several separated by ;.", rich_help_panel=LABELLED),
    ] = None,
    caption_column: Annotated[
        str | None, typer.Option(help="Column with the caption.", rich_help_panel=LABELLED)
    ] = None,
    image_root: Annotated[
        str | None,
        typer.Option(
            help="What paths in a table are relative to. [default: the folder of the table]",
            rich_help_panel=LABELLED,
        ),
    ] = None,
    any_base: options.AnyBase = False,
    template: Annotated[
        list[str],
        typer.Option(
            help="Zero-shot sentence with {} for the label; may be given several times.",
            rich_help_panel=LABELLED,
        ),
    ] = [],  # noqa: B006
    labels: Annotated[
        list[str],
        typer.Option(
            help="Zero-shot labels to choose among: a file with one per line, or separated by commas; or names for"
            " classes, as `id=name`. [default: the names of the classes]",
            rich_help_panel=LABELLED,
        ),
    ] = [],  # noqa: B006
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder for evaluation.json, confusion.png, calibration.png.", rich_help_panel=LABELLED
        ),
    ] = None,
    predictions: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="What was predicted for each image: a file (.csv .tsv .json .jsonl .parquet); - for the JSON of"
            " --json and --output.",
            rich_help_panel=LABELLED,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace what --output and --predictions name.", rich_help_panel=LABELLED
        ),
    ] = False,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="ORIGINAL CONVERTED",
            autocompletion=checkpoints,
            help="Two checkpoints of one model: a folder, a repository, a short name.",
            rich_help_panel=COMPARING,
        ),
    ] = None,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Show every layer, not only those with the largest error.",
            rich_help_panel=COMPARING,
        ),
    ] = False,
    json: options.Json = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the model's, or the original's, repository.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="The weight file of it to read, where it holds several.")
    ] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    keep_quantized: options.KeepQuantized = False,
    exclude: options.Exclude = [],  # noqa: B006 - typer makes a new list each time
    decode: options.Decode = EXACT,
    background: options.Background = options.BACKGROUND,
    max_megapixels: options.MaxMegapixels = options.MAX_MEGAPIXELS,
    allow_truncated: options.AllowTruncated = False,
    color_managed: options.ColorManaged = None,
    min_patches: options.MinPatches = options.MIN_PATCHES,
    max_patches: options.MaxPatches = options.MAX_PATCHES,
    interpolate_positions: options.InterpolatePositions = False,
    image_size: options.ImageSize = None,
) -> None:
    """Say how good a model is on images with labels or captions, or what a conversion changed."""
    _check_mode(context, inputs, data, compare, layers)
    request = None
    if data is not None:
        request = Request(
            data=data,
            adapter_path=adapter_path,
            model=model or options.DEFAULT,
            split=split,
            val_fraction=val_fraction,
            seed=seed,
            templates=template or None,
            labels=labels or None,
            output=output,
            predictions=predictions,
            force=force,
            json=json,
            batch_size=batch_size,
            any_base=any_base,
            exclude=tuple(exclude),
            columns=Columns(image_column, label_column, caption_column),
            image_root=image_root,
        )
        check_request(request)
    names, empty = images(inputs, exclude) if inputs else (None, {})
    from ..backend.device import require_mlx, use_device

    require_mlx()
    if request is not None:
        base, revision = base_of(model, revision, adapter_path)
        request = dataclasses.replace(request, model=base)
    if device:
        use_device(device)
    settings = options.load_options(
        dtype=dtype,
        keep_quantized=keep_quantized,
        weights=weights,
        decode=decode,
        background=background,
        max_megapixels=max_megapixels,
        allow_truncated=allow_truncated,
        color_managed=color_managed is not False,  # as in training
        min_patches=min_patches,
        max_patches=max_patches,
        interpolate_positions=interpolate_positions,
        image_size=image_size,
    )
    with screen(empty) as shown:
        if request is not None:
            evaluate_data(request, revision, settings, shown)
        elif compare is not None:
            from ..fidelity.compare import compare as run

            fidelity = run(*compare, names, revision=revision, options=settings, on_event=shown)
            shown.close()
            if json:
                put(jsonlib.dumps(fidelity.to_dict(), indent=2))
            else:
                show(fidelity, layers)
    if shown.skipped:
        raise SystemExit(NOT_ALL_DONE)


def _check_mode(
    context: typer.Context,
    inputs: list[str] | None,
    data: Path | None,
    compare: tuple[str, str] | None,
    layers: bool,
) -> None:
    """Refuse what belongs to the other mode, or to both.

    Raises:
        InputError: neither mode, both, or an option that the one asked for has no use for.
    """
    if data is None and compare is None:
        raise InputError(
            "nothing to evaluate: give --data PATH (labelled images) or --compare ORIGINAL CONVERTED"
        )
    if data is not None and compare is not None:
        raise InputError("--data and --compare are two questions: ask one at a time")
    if data is not None and inputs:
        raise InputError(f"the images come from --data {data}: leave out {inputs[0]}")
    if data is not None and layers:
        raise InputError("--layers is for --compare")
    if data is None:
        for name in DATA_OPTIONS:
            source = context.get_parameter_source(name)
            if source is not None and source.name != "DEFAULT":
                raise InputError(f"--{name.replace('_', '-')} is for --data, not for --compare")


def show(fidelity: Fidelity, every_layer: bool, command: str | None = None) -> None:
    """A comparison as two tables: what there is to say of each checkpoint, and the layers.

    Args:
        fidelity: the comparison.
        every_layer: show every layer, not only those with the largest error.
        command: what shows all of them, where that is another command.
    """
    from ..fidelity.report import percent

    names = ("checkpoint", fidelity.original.name, fidelity.converted.name)
    table(("what", "original", "converted"), [names, *fidelity.rows()])
    chosen = fidelity.layers if every_layer else fidelity.worst_layers
    table(("layer", "relative error"), [(name, percent(error)) for name, error in chosen], paths=("layer",))
    images = counted(fidelity.images, "built-in drawing" if fidelity.drawn else "image")
    few = f" on {fidelity.layer_images} of them" if fidelity.layer_images < fidelity.images else ""
    say(f"compared on {images}, layer by layer{few}")
    if len(chosen) < len(fidelity.layers):
        worst = f"the {len(chosen)} of {len(fidelity.layers)} layers with the largest error"
        if command is None:
            say(f"these are {worst}; --layers shows all")
        else:
            advise(f"these are {worst}; this shows all:", command)
