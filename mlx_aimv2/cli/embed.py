"""`mlx-aimv2 embed`: images or texts to vectors."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..backend.ranks import Ranks, launched
from ..errors import InputError
from ..options.fields import flag, like, option, options_from
from ..sources.options import CropOptions, SourceOptions
from ..vectors.options import WriterOptions
from .arguments import sources, with_texts
from .completion import POOLINGS, choices
from .guard import verb
from .interrupts import ending_at_once
from .jobs import Sink, run
from .model_options import ModelOptions
from .output import put
from .regions import check_named, noting_clipped
from .screen import screen
from .tables import table

if TYPE_CHECKING:
    from ..inference.embedder import Embedded
    from ..vectors.writer import VectorWriter

SHOWN_VALUES = 4


@dataclass(frozen=True)
class EmbedOptions:
    """What to embed, and where to."""

    text: bool = like(WriterOptions, "text")
    output: str | None = option(
        None,
        "File (.npz .npy .safetensors .jsonl .parquet), or FOLDER/ for shards.",
        flags=("-o", "--output"),
    )
    force: bool = like(WriterOptions, "force")
    prune: bool = like(WriterOptions, "prune")
    shard_format: str | None = like(WriterOptions, "shard_format")
    retry_failed: bool = like(WriterOptions, "retry_failed")
    pooling: str = option(
        "auto", "auto, mean, max, head, or tokens (a grid).", autocompletion=choices(POOLINGS)
    )
    grid: bool = option(False, "The grid of patch features (h, w, D): the same as --pooling tokens.")
    normalize: bool = option(True, "Scale every vector to unit length.")
    json: bool = option(False, "Print JSON lines.")

    @property
    def writing(self) -> WriterOptions:
        """How to write a file or a folder."""
        return options_from(WriterOptions, self)

    @property
    def pooled(self) -> str:
        """The name of the pooling."""
        return "tokens" if self.grid else self.pooling

    def check(self, names: list[str], ranks: Ranks) -> None:
        """Check what can be checked before a model is loaded.

        Args:
            names: of the images or texts.
            ranks: the processes that share them.

        Raises:
            InputError: options that contradict each other, or an output that cannot be written.
        """
        from ..inference.pooling import check_pooling_name
        from ..vectors.writer import Rank, check_output

        check_pooling_name(self.pooling)
        if self.grid and self.pooling not in ("auto", "tokens"):
            raise InputError(
                f"--grid is --pooling tokens, and not --pooling {self.pooling}: give one of them"
            )
        if self.text and self.pooled != "auto":
            raise InputError(f"--pooling {self.pooled} is for images: texts have one embedding")
        if self.pooled == "tokens" and self.shard_format == "parquet":
            raise InputError(
                "--shard-format parquet holds one vector an image, and --pooling tokens gives a grid"
            )
        if self.pooled == "tokens" and self.output is not None and self.output.lower().endswith(".parquet"):
            raise InputError("a .parquet file holds one vector per row: use .npz for token grids")
        if self.json and self.output is not None:
            raise InputError("--json prints to stdout and -o writes a file: give one of them")
        writing = ("force", "prune", "shard_format", "retry_failed")
        if self.output is None and (useless := [name for name in writing if getattr(self, name)]):
            raise InputError(f"{flag(useless[0])} needs -o")
        if self.output is None and ranks:
            raise InputError(f"{ranks.size} processes have one output if it is a folder: add -o FOLDER/")
        if self.output is not None:
            check_output(self.output, names, self.writing, Rank(ranks.number, ranks.size))


@verb
def embed(
    *,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES...",
            help="Images, folders, patterns, archives, tables, videos, addresses; with --text: texts."
            " - for a list on stdin. None with --boxes.",
        ),
    ] = None,
    options: EmbedOptions,
    model: ModelOptions,
    source: SourceOptions,
    regions: CropOptions,
) -> None:
    """Turn images (or, with --text, texts) into vectors.

    Without -o, prints a table on a terminal and JSON lines in a pipe.
    """
    from .. import Embedder
    from ..models.classifier import Classifier
    from ..vectors.writer import Rank, open_writer

    if options.text and regions:
        raise InputError("--boxes and --tiles are for images: texts have no regions")
    given, ranks = check_named(inputs, regions, "embed"), launched()
    if ranks and "-" in given:
        raise InputError("- reads stdin, which mlx.launch never ends: name images or folders instead")
    found = None if options.text else sources(given, model.exclude, source, regions, model.decoding)
    names = found.names if found is not None else with_texts(given)
    options.check(names, ranks)
    if ranks:
        _check_alike(names, ranks)
    with screen(found.empty if found is not None else {}) as events:
        loaded, processor = model.load(events)
        encoder = loaded.trunk if isinstance(loaded, Classifier) else loaded
        embedder = Embedder(encoder, processor, options.pooled, options.normalize, model.batch_size)
        sink: Sink[Embedded]
        wanted: Sequence[int] = range(len(names))
        if options.output is None:
            key = "text" if options.text else "path"
            sink = _Table(key) if sys.stdout.isatty() and not options.json else _Lines(key)
        else:
            rank = Rank(ranks.number, ranks.size)
            writer = open_writer(options.output, embedder.fingerprint, options.writing, events, rank)
            sink = _Output(writer)
            if found is None:
                wanted = writer.remaining(names)
            else:
                wanted = writer.remaining(names, found.files, found.versions)
        names = [names[k] for k in wanted]
        images = [found.images[k] for k in wanted] if found is not None else []
        stream = embedder.stream_texts(names) if options.text else embedder.stream(images)
        if regions:
            stream = noting_clipped(stream, images, events)
        fail = sink.writer.fail if isinstance(sink, _Output) else None
        run(stream, names, sink, events, "embedded", "text" if options.text else "image", fail, ranks)


def _check_alike(names: list[str], ranks: Ranks) -> None:
    """Raise InputError if the ranks do not find the same items: each works on a part of its own list."""
    with ending_at_once():
        lists = ranks.gather([len(names), zlib.crc32("\0".join(names).encode(errors="surrogatepass"))])
    for number, (count, digest) in enumerate(lists):
        if [count, digest] != lists[0]:
            raise InputError(
                f"rank {number} finds {count} items and rank 0 {lists[0][0]}, or of other names: give all"
                " machines the same files at the same paths"
            )


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


class _Output:
    """A file or a folder of shards."""

    def __init__(self, writer: VectorWriter) -> None:
        self.writer = writer

    def add(self, name: str, result: Embedded) -> None:
        self.writer.add(name, result.vector)

    def close(self, interrupted: bool = False) -> None:
        self.writer.close(interrupted)
