"""The manifest of a folder of embeddings: the shards that count and what made them."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, OutputError
from ..storage.atomic import replacing

MANIFEST = "manifest.json"
PART = ".part"
SHARD_NAME = re.compile(r"embeddings-(\d{5,})\.npz")


def part_folder(path: Path) -> Path:
    """The folder of shards that takes the vectors of a run until its result is whole, beside that result."""
    return path.with_name(f"{path.name}{PART}")


@dataclass(frozen=True)
class Manifest:
    """What counts in a folder of shards.

    Attributes:
        fingerprint: what made the vectors.
        shards: the name of each shard, and how many rows it has.
    """

    fingerprint: dict[str, Any]
    shards: dict[str, int]

    def write(self, folder: Path) -> None:
        """Write it, whole or not at all.

        Raises:
            OutputError: it cannot be written.
        """
        shards = [{"file": file, "rows": rows} for file, rows in self.shards.items()]
        with replacing(folder / MANIFEST) as partial:
            text = json.dumps({"fingerprint": self.fingerprint, "shards": shards}, indent=2)
            partial.write_text(text, encoding="utf-8")


def shard_number(file: str) -> int | None:
    """The number in the name of a shard; None for other names."""
    match = SHARD_NAME.fullmatch(file)
    return int(match[1]) if match else None


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a folder; None where there is none, and nothing else either.

    Raises:
        InputError: it is damaged or missing, or the folder is none of shards.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        names = _visible(folder)
        foreign = [name for name in names if shard_number(name) is None]
        if foreign:
            raise InputError(f"{folder} holds other files ({foreign[0]}): name a new folder")
        if names:
            raise InputError(
                f"{folder} holds shards ({names[0]}) and no {MANIFEST}: put it back, or replace the folder with"
                " --force"
            )
        return None
    try:
        data = json.loads(path.read_bytes())
        made_by = dict(data["fingerprint"])
        shards = {str(shard["file"]): int(shard["rows"]) for shard in data["shards"]}
        odd = next((file for file in shards if shard_number(file) is None), None)
        if odd is not None:
            raise ValueError(f"it names {odd!r}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a manifest of embeddings: {error}; name a new folder, or replace it with --force"
        ) from error
    return Manifest(made_by, shards)


def check_replaceable(folder: Path) -> None:
    """Refuse to remove a folder that holds something else than shards.

    Raises:
        InputError: it does.
    """
    names = _visible(folder) if folder.is_dir() else []
    foreign = [name for name in names if name != MANIFEST and shard_number(name) is None]
    if foreign:
        raise InputError(
            f"{folder} holds other files ({foreign[0]}), which --force does not remove: name a new folder"
        )


def _visible(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError.reading(folder, error) from error
