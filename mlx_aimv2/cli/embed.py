"""`mlx-aimv2 embed`: pictures or texts to vectors."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from ..errors import InputError
from ..events import Progress, Skipped
from . import options
from .ui import ALL_DONE, NOT_ALL_DONE, Screen, interruptible, leave, put, say, screen, table, verb

if TYPE_CHECKING:
    import numpy as np

    from ..embedding import Embedder

SHOWN_VALUES = 4


class Sink(Protocol):
    """Where vectors go."""

    def add(self, name: str, vector: np.ndarray) -> None:
        """Take the next vector."""

    def close(self) -> None:
        """Bring out what has been taken; also after an interruption."""


@verb
def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="PICTURES...",
            help="Pictures, folders, patterns; - for a list on stdin. With --text: texts.",
        ),
    ],
    text: Annotated[bool, typer.Option("--text", help="The arguments are texts, not pictures.")] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", help="File (.npz .npy .safetensors .jsonl .parquet), or FOLDER/ for shards."
        ),
    ] = None,
    model: options.Model = options.DEFAULT,
    pooling: Annotated[str, typer.Option(help="auto, mean, max, head, or tokens (a grid).")] = "auto",
    normalize: Annotated[bool, typer.Option(help="Scale every vector to unit length.")] = True,
    json: options.Json = False,
    revision: options.Revision = None,
    dtype: options.Dtype = "auto",
    device: options.Device = None,
    batch_size: options.BatchSize = None,
    keep_quantized: options.KeepQuantized = False,
    decode: options.Decode = "fast",
    background: options.Background = "white",
    max_megapixels: options.MaxMegapixels = 200.0,
    min_patches: options.MinPatches = 112,
    max_patches: options.MaxPatches = 4096,
) -> None:
    """Turn pictures (or, with --text, texts) into vectors.

    Without -o: a table on a terminal, JSON lines in a pipe.
    """
    from .. import Embedder, load
    from ..models.backend import use_device
    from ..vectors import check_target

    names = inputs if text else pictures(inputs)
    if output is not None and not output.endswith("/"):
        check_target(Path(output))
    if device:
        use_device(device)
    settings = options.load_options(
        dtype, keep_quantized, decode, background, max_megapixels, min_patches, max_patches
    )
    with screen() as shown:
        loaded, processor = load(model, revision=revision, options=settings, on_event=shown)
        embedder = Embedder(loaded, processor, pooling, normalize, batch_size)
        sink = make_sink(output, json, embedder, "text" if text else "path")
        shown.start_clock()
        if text:
            for name, vector in zip(names, embedder.texts(names), strict=True):
                sink.add(name, vector)
            sink.close()
        else:
            _run(embedder, names, sink, shown)


def _run(embedder: Embedder, names: list[str], sink: Sink, shown: Screen) -> None:
    """Embed all pictures into ``sink``, and end the process."""
    names = sink.remaining(names) if isinstance(sink, _Shards) else names
    count = 0

    def finish(interrupted: bool = False) -> None:
        shown.close()
        sink.close()
        if len(names) > 1 or interrupted:
            say(shown.summary("embedded", count, len(names), interrupted))

    with interruptible(functools.partial(finish, interrupted=True)) as lock:
        for item in embedder.stream(names):
            with lock:
                if item.vector is None:
                    shown(Skipped(names[item.index], str(item.error)))
                else:
                    sink.add(names[item.index], item.vector)
                    count += 1
                shown(Progress("embedding", item.index + 1, len(names)))
    finish()
    leave(NOT_ALL_DONE if shown.skipped else ALL_DONE)


def pictures(names: Sequence[str]) -> list[str]:
    """The pictures meant by the arguments of a verb, with `-` read from stdin."""
    from ..sources.paths import expand

    found = expand(name for given in names for name in (_from_stdin() if given == "-" else [given]))
    if not found:
        raise InputError("no pictures: name files, folders or patterns")
    return found


def _from_stdin() -> Iterator[str]:
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("- reads a list of pictures from stdin, and nothing is piped into it")
    data = sys.stdin.buffer.read().decode(errors="surrogateescape")
    yield from filter(None, data.split("\0") if "\0" in data else data.splitlines())


def make_sink(output: str | None, json: bool, embedder: Embedder, key: str) -> Sink:
    """Where the vectors of this run go."""
    if output is None:
        return _Table() if sys.stdout.isatty() and not json else _Lines(key)
    if output.endswith("/"):
        return _Shards(output, embedder)
    return _File(output, embedder)


class _Lines:
    """JSON lines on stdout, each as soon as it is known."""

    def __init__(self, key: str) -> None:
        self.key = key

    def add(self, name: str, vector: np.ndarray) -> None:
        from ..vectors import json_line

        put(json_line(name, vector, self.key))

    def close(self) -> None:
        return


class _Table:
    """A readable table of the vectors' first values."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str]] = []

    def add(self, name: str, vector: np.ndarray) -> None:
        values = "  ".join(f"{value:+.4f}" for value in vector.ravel()[:SHOWN_VALUES])
        self.rows.append((name, " x ".join(map(str, vector.shape)), f"{values}  …"))

    def close(self) -> None:
        if self.rows:
            table(("input", "shape", "embedding"), self.rows, cut=True)


class _File:
    """One file with everything in it."""

    def __init__(self, output: str, embedder: Embedder) -> None:
        self.path, self.embedder = Path(output), embedder
        self.names: list[str] = []
        self.vectors: list[np.ndarray] = []

    def add(self, name: str, vector: np.ndarray) -> None:
        if self.vectors and vector.shape != self.vectors[0].shape:
            raise InputError(
                f"{name} has a token grid of {vector.shape[:2]} and others of {self.vectors[0].shape[:2]}:"
                " one file holds grids of one size; use JSON lines in a pipe, or another pooling"
            )
        self.names.append(name)
        self.vectors.append(vector)

    def close(self) -> None:
        import numpy as np

        from ..vectors import write

        if not self.names:
            say(f"nothing to write to {self.path}")
            return
        write(self.path, self.names, np.stack(self.vectors), self.embedder.fingerprint)
        say(f"wrote {len(self.names)} vectors to {self.path}")


class _Shards:
    """A folder of shards, which a later run continues."""

    def __init__(self, output: str, embedder: Embedder) -> None:
        from ..vectors import ShardFolder

        self.folder = ShardFolder(Path(output), embedder.fingerprint)
        self.add = self.folder.add

    def remaining(self, names: list[str]) -> list[str]:
        done = self.folder.done()
        left = [name for name in names if name not in done]
        if len(left) < len(names):
            say(f"{len(names) - len(left)} pictures are in {self.folder.folder} already")
        return left

    def close(self) -> None:
        self.folder.close()
        say(
            f"wrote {sum(shard['rows'] for shard in self.folder.shards)} vectors in all to {self.folder.folder}"
        )
