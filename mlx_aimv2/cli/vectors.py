"""`mlx-aimv2 vectors`: vectors in another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..messages import counted
from ..options.fields import option
from .guard import verb
from .output import say


@dataclass(frozen=True)
class TransferOptions:
    """Where to write vectors."""

    output: Path | None = option(
        None,
        "File (.npz .npy .safetensors .jsonl .parquet), or a LanceDB database NAME.lancedb.",
        flags=("-o", "--output"),
    )
    table: str | None = option(None, "The table of a LanceDB database. [default: embeddings]")
    force: bool = option(False, "Replace an existing file or table.")


@verb
def vectors(
    source: Annotated[Path, typer.Argument(help="A folder of shards, or a file of vectors.")],
    options: TransferOptions,
) -> None:
    """Write vectors that `embed` wrote in another format, in the same order."""
    from ..vectors.transfer import transfer

    if options.output is None:
        raise InputError("name the file to write with -o")
    count = transfer(source, options.output, options.force, options.table)
    say(f"wrote {counted(count, 'vector')} to {options.output}")
