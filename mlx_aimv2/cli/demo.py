"""`mlx-aimv2 demo`: embed, label and rank the sample images with the checkpoint inside the package."""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from ..demo.options import TourOptions
from ..messages import duration, size
from ..options.fields import like
from ..presets import BITS_FLOAT32, DEFAULT_MODEL, find
from .completion import checkpoints
from .guard import interruption_note, verb
from .model_options import DeviceOptions, JsonOptions
from .output import advise, put, say
from .screen import screen
from .tables import table

if TYPE_CHECKING:
    from ..demo.findings import Tour

BEST = 3  # rows of a table name so many images


@dataclass(frozen=True)
class DemoOptions(JsonOptions, TourOptions):
    """The model and the images of the demo, and how to print its results."""

    model: str = like(TourOptions, "model", autocompletion=checkpoints)


@verb
def demo(
    *,
    output: Annotated[Path, typer.Argument(help="The folder to write.")] = Path("demo-output"),
    options: DemoOptions,
    device: DeviceOptions,
) -> None:
    """Embed and label a dozen sample images, and rank them for sentences: one contact sheet. Offline."""
    from ..backend.device import require_mlx

    require_mlx()
    from ..demo.findings import IMAGES
    from ..demo.tour import take_tour

    device.use_device()
    folder = output.expanduser()
    note = interruption_note(folder / IMAGES, f"{folder} is incomplete: --force replaces it")
    with screen() as events, note:
        events.start_clock()
        tour = take_tour(folder, options, events)
        seconds = events.seconds
    if options.json:
        put(jsonlib.dumps(tour.to_dict(), indent=2))
    else:
        _show(tour)
    say(f"{tour.right} of {len(tour.images)} labels are right; {duration(seconds)} in all")
    _show_commands(tour, options.model)


def _show(tour: Tour) -> None:
    """Print three tables: labels, sentences, neighbours."""
    images = tour.images
    labels = [
        (
            image.path.name,
            " + ".join(image.labels),
            image.predictions[0][0],
            f"{image.predictions[0][1]:.1%}",
            "right" if image.is_right else "wrong",
        )
        for image in images
    ]
    sentences = [
        (x.text, str(x.rank), ", ".join(images[k].path.name for k, _ in x.ranking[:BEST]))
        for x in tour.sentences
    ]
    neighbours = [
        (x.path.name, ", ".join(f"{images[k].path.name} {cosine:.2f}" for k, cosine in x.neighbours[:BEST]))
        for x in images
    ]
    separator = () if sys.stdout.isatty() else ("",)  # a drawn table ends with an empty line
    table(("image", "truth", "label", "probability", "result"), labels, paths=("image",))
    for line in separator:
        put(line)
    table(("sentence", "rank of its image", "images found, best first"), sentences)
    for line in separator:
        put(line)
    table(("image", "nearest, with cosine"), neighbours, paths=("image",))


def _show_commands(tour: Tour, model: str) -> None:
    """Print commands for the same steps; after the checkpoint `demo` also commands for Apple's."""
    from ..checkpoints.bundled import is_demo
    from ..demo.findings import IMAGES, LABELS_FILE
    from ..demo.tour import TEMPLATES

    images, labels = (quote(str(tour.folder / name)) for name in (IMAGES, LABELS_FILE))
    chosen = f"--model {quote(model)}"
    templates = " ".join(f"--template {quote(template)}" for template in TEMPLATES)
    advise(
        "the same, step by step:",
        f"embed {images} {chosen} -o vectors.npz",
        f"embed --text {quote(tour.sentences[0].text)} {chosen}",
        f"classify {images} --labels-file {labels} {templates} {chosen}",
    )
    if not is_demo(model):
        return
    apple = find(DEFAULT_MODEL)
    assert apple is not None
    download = f"{size(apple.bytes_at(BITS_FLOAT32))} to download once, for research use"
    advise(
        f"with Apple's {apple.repo} ({download}), on images of yours in photos/:",
        "embed photos/ --model lit -o photos.npz",
        "embed --text 'a dog on a beach' --model lit",
        "classify photos/ --labels 'a dog,a cat,a horse' --model lit",
    )
