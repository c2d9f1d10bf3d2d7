"""`WriterOptions`: how to write vectors."""

from __future__ import annotations

from dataclasses import dataclass

from ..options.fields import one_of, option

SHARD_FORMATS = ("safetensors", "parquet", "npz")


@dataclass(frozen=True)
class WriterOptions:
    """How to write vectors."""

    force: bool = option(False, "Replace what -o names.")
    prune: bool = option(False, "Remove vectors from -o FOLDER/ if their images no longer exist.")
    text: bool = option(False, "The arguments are texts, not images.")
    shard_format: str | None = option(
        None, "Format of new shards in -o FOLDER/; safetensors in a new folder.", None, one_of(SHARD_FORMATS)
    )
    retry_failed: bool = option(False, "Try images again that failed before and have not changed.")
