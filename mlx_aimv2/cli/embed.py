"""`mlx-aimv2 embed`: images or texts to vectors."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError
from . import parameters as options
from .completion import POOLINGS, choices
from .guard import verb
from .jobs import Sink, images, run
from .output import put
from .screen import screen
from .stdin import with_texts
from .tables import table
from .trained_folders import base_of

if TYPE_CHECKING:
    from ..inference.embedder import Embedded
    from ..vectors.writer import VectorWriter, WriterOptions

SHOWN_VALUES = 4


@verb
def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES...",
            help="Images, folders, patterns; with --text: texts. - for a list on stdin.",
        ),
    ],
    text: Annotated[bool, typer.Option("--text", help="The arguments are texts, not images.")] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", help="File (.npz .npy .safetensors .jsonl .parquet), or FOLDER/ for shards."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what -o names.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove the vectors of images that are gone from -o FOLDER/.")
    ] = False,
    model: options.AdaptedModel = None,
    pooling: Annotated[
        str, typer.Option(help="auto, mean, max, head, or tokens (a grid).", autocompletion=choices(POOLINGS))
    ] = "auto",
    normalize: Annotated[bool, typer.Option(help="Scale every vector to unit length.")] = True,
    adapter_path: Annotated[
        Path | None, typer.Option(help="What `finetune` wrote: vectors of the encoder, or pair, it trained.")
    ] = None,
    any_base: options.AnyBase = False,
    json: options.Json = False,
    revision: options.Revision = None,
    weights: options.Weights = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    keep_quantized: options.KeepQuantized = False,
    exclude: options.Exclude = [],  # noqa: B006 - typer makes a new list each time
    decode: options.Decode = options.DECODE,
    background: options.Background = options.BACKGROUND,
    max_megapixels: options.MaxMegapixels = options.MAX_MEGAPIXELS,
    allow_truncated: options.AllowTruncated = False,
    color_managed: options.ColorManaged = None,
    min_patches: options.MinPatches = options.MIN_PATCHES,
    max_patches: options.MaxPatches = options.MAX_PATCHES,
    interpolate_positions: options.InterpolatePositions = False,
    image_size: options.ImageSize = None,
) -> None:
    """Turn images (or, with --text, texts) into vectors.

    Without -o: a table on a terminal, JSON lines in a pipe.
    """
    from .. import Embedder, load
    from ..backend.device import use_device
    from ..inference.pooling import check_choice
    from ..models.classifier import Classifier
    from ..vectors.writer import WriterOptions, open_writer

    names, empty = (with_texts(inputs), {}) if text else images(inputs, exclude)
    check_choice(pooling)
    if any_base and adapter_path is None:
        raise InputError("--any-base is for --adapter-path: leave it out")
    writing = WriterOptions(force, prune, text)
    _check_request(names, writing, pooling, json, output)
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
        color_managed=color_managed,
        min_patches=min_patches,
        max_patches=max_patches,
        interpolate_positions=interpolate_positions,
        image_size=image_size,
    )
    base, revision = base_of(model, revision, adapter_path)
    with screen(empty) as shown:
        settings = dataclasses.replace(settings, any_base=any_base)
        loaded, processor = load(
            base, revision=revision, options=settings, on_event=shown, adapter_path=adapter_path
        )
        encoder = loaded.trunk if isinstance(loaded, Classifier) else loaded
        embedder = Embedder(encoder, processor, pooling, normalize, batch_size)
        sink: Sink[Embedded]
        if output is None:
            key = "text" if text else "path"
            sink = _Table(key) if sys.stdout.isatty() and not json else _Lines(key)
        else:
            writer = open_writer(output, embedder.fingerprint, writing, shown)
            sink, names = _Written(writer), writer.remaining(names)
        stream = embedder.stream_texts(names) if text else embedder.stream(names)
        run(stream, names, sink, shown, "embedded", "text" if text else "image")


def _check_request(
    names: list[str], writing: WriterOptions, pooling: str, json: bool, output: str | None
) -> None:
    """Refuse what contradicts itself or cannot be written, before a model is loaded."""
    from ..vectors.writer import check_output

    if writing.texts and pooling != "auto":
        raise InputError(f"--pooling {pooling} is for images: texts have one embedding")
    if json and output is not None:
        raise InputError("--json prints to stdout and -o writes a file: give one of them")
    if output is None and (writing.force or writing.prune):
        raise InputError(f"--{'force' if writing.force else 'prune'} needs -o")
    if output is not None:
        check_output(output, names, writing)


class _Lines:
    """JSON lines on stdout, each as soon as it is known."""

    def __init__(self, key: str) -> None:
        self.key = key

    def add(self, name: str, result: Embedded) -> None:
        from ..vectors.files import json_line

        put(json_line(name, result.vector, self.key))

    def close(self, interrupted: bool = False) -> None:
        return


class _Table:
    """A readable table of the vectors' first values."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.rows: list[tuple[str, str, str]] = []

    def add(self, name: str, result: Embedded) -> None:
        vector = result.vector
        values = "  ".join(f"{value:+.4f}" for value in vector.ravel()[:SHOWN_VALUES])
        self.rows.append((name, " x ".join(map(str, vector.shape)), f"{values}  …"))

    def close(self, interrupted: bool = False) -> None:
        if self.rows:
            table((self.key, "shape", "embedding"), self.rows, cut=True, paths=("path",))


class _Written:
    """A file or a folder of shards."""

    def __init__(self, writer: VectorWriter) -> None:
        self.writer = writer

    def add(self, name: str, result: Embedded) -> None:
        self.writer.add(name, result.vector)

    def close(self, interrupted: bool = False) -> None:
        self.writer.close(interrupted)
