"""`mlx-aimv2 compare`: what a conversion changed in a checkpoint."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..messages import counted
from ..options.fields import like, option
from .arguments import images
from .completion import checkpoints
from .guard import NOT_ALL_DONE, verb
from .model_options import ExactLoadingOptions, JsonOptions
from .output import advise, put, say
from .screen import screen
from .tables import table

if TYPE_CHECKING:
    from ..fidelity.report import Fidelity

CHECKPOINT_HELP = "A folder, a repository, or a short name."


@dataclass(frozen=True)
class ComparisonOptions:
    """How to print the comparison."""

    layers: bool = option(False, "Show every layer, not only those with the largest error.")
    json: bool = like(JsonOptions, "json")


@verb
def compare(
    *,
    original: Annotated[
        str,
        typer.Argument(
            help=f"{CHECKPOINT_HELP} --revision and --weights belong to it.", autocompletion=checkpoints
        ),
    ],
    converted: Annotated[
        str, typer.Argument(help=f"{CHECKPOINT_HELP} It is made from ORIGINAL.", autocompletion=checkpoints)
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES...",
            help="Images, folders, patterns; - for a list on stdin; none for built-in drawings.",
        ),
    ] = None,
    output: ComparisonOptions,
    loading: ExactLoadingOptions,
) -> None:
    """Compare a checkpoint with its conversion on the same images: embeddings, labels, layers, speed, memory."""
    names, empty = images(inputs, loading.exclude) if inputs else (None, {})
    from ..backend.device import require_mlx

    require_mlx()
    from ..fidelity.compare import compare as run

    loading.use_device()
    with screen(empty) as events:
        options = loading.load_options()
        fidelity = run(
            original, converted, names, revision=loading.revision, options=options, on_event=events
        )
    if output.json:
        put(jsonlib.dumps(fidelity.to_dict(), indent=2))
    else:
        show(fidelity, output.layers)
    if events.skipped:
        raise SystemExit(NOT_ALL_DONE)


def show(fidelity: Fidelity, every_layer: bool, command: str | None = None) -> None:
    """Print a comparison: a table of both checkpoints, and a table of layers.

    Args:
        fidelity: the comparison.
        every_layer: print every layer, not only those with the largest error.
        command: the command that prints all of them; None for this verb with --layers.
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
