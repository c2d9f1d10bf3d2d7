"""The manifest of a folder of shards, and the names of the files in such a folder.

A rank, which is one of several processes that write to a folder together, has a folder of its own in it, with shards
and a manifest. The last rank that ends puts the names of all shards into the manifest of the whole folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, OutputError
from ..storage.atomic import replacing
from .checksums import sha256_of
from .fingerprint import Fingerprint, check_same
from .options import SHARD_FORMATS

MANIFEST, FAILURES, PART = "manifest.json", "errors.jsonl", ".part"
RANK_FOLDER = re.compile(r"rank-\d+-of-\d+")
SHARD_NAME = re.compile(rf"(?:{RANK_FOLDER.pattern}/)?embeddings-(\d{{5,}})\.(?:{'|'.join(SHARD_FORMATS)})")


@dataclass(frozen=True)
class Entry:
    """What the manifest says of a shard.

    Attributes:
        rows: their number.
        nbytes: the size of the file; None in a manifest of an old version.
        sha256: of the file; None in a manifest of an old version.
    """

    rows: int
    nbytes: int | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, path: Path, rows: int) -> Entry:
        """The entry of a shard on disk."""
        return cls(rows, path.stat().st_size, _sha256(path))

    def check_size(self, path: Path) -> None:
        """Raise InputError if the file has another size than the shard that was written."""
        size = path.stat().st_size if path.is_file() else 0
        if self.nbytes is not None and size != self.nbytes:
            raise InputError(f"{path} is damaged: it has {size} bytes instead of {self.nbytes}")

    def check_content(self, path: Path) -> None:
        """Raise InputError if the file is not the shard that was written, byte for byte."""
        self.check_size(path)
        if self.sha256 is not None and _sha256(path) != self.sha256:
            raise InputError(f"{path} is damaged: its checksum is not that in {MANIFEST}")


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise OutputError.reading(path, error) from error


@dataclass(frozen=True)
class Manifest:
    """The valid shards of a folder.

    Attributes:
        fingerprint: of the vectors.
        shards: by file name, relative to the whole folder.
        options: how they were written, for people to read.
    """

    fingerprint: dict[str, Any]
    shards: dict[str, Entry]
    options: Mapping[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the manifest, whole or not at all."""
        shards = [
            {"file": file, "rows": entry.rows, "bytes": entry.nbytes, "sha256": entry.sha256}
            for file, entry in self.shards.items()
        ]
        content = {
            "fingerprint": self.fingerprint,
            "options": dict(self.options),
            "rows": sum(entry.rows for entry in self.shards.values()),
            "shards": shards,
        }
        with replacing(folder / MANIFEST) as partial:
            partial.write_text(json.dumps(content, indent=2), encoding="utf-8")


def part_folder(path: Path) -> Path:
    """The folder of shards beside a result, for the vectors of a run until the result is complete."""
    return path.with_name(f"{path.name}{PART}")


def shard_number(file: str) -> int | None:
    """The number in the file name of a shard; None for other file names."""
    match = SHARD_NAME.fullmatch(file)
    return int(match[1]) if match else None


def in_order(files: set[str]) -> list[str]:
    """File names of shards in the order in which they were written."""
    return sorted(files, key=lambda file: (shard_number(file) or 0, file))


def rank_folders(folder: Path) -> list[str]:
    """The names of the folders of ranks in a folder."""
    return sorted(
        path.name for path in folder.iterdir() if RANK_FOLDER.fullmatch(path.name) and path.is_dir()
    )


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None if the folder is empty, or has nothing but folders of ranks.

    Raises:
        InputError: the manifest is damaged or missing, or the folder is not a folder of shards.
    """
    path = folder / MANIFEST
    if not os.path.lexists(path):
        files, others = _content(folder)
        if others:
            raise InputError(f"{folder} holds other files ({others[0]}): name a new folder")
        if files:
            raise InputError(
                f"{folder} holds shards ({files[0]}) and no {MANIFEST}: put it back, or replace the folder with"
                " --force"
            )
        return None
    try:
        data = json.loads(path.read_bytes())
        shards = {str(shard["file"]): _entry(shard) for shard in data["shards"]}
        foreign = [file for file in shards if shard_number(file) is None]
        if foreign:
            raise ValueError(f"it names {foreign[0]!r}")
        return Manifest(dict(data["fingerprint"]), shards, dict(data.get("options", {})))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path} is not a manifest of embeddings: {error}; name a new folder, or replace it with --force"
        ) from error


def _entry(shard: Any) -> Entry:
    nbytes, sha256 = shard.get("bytes"), shard.get("sha256")
    return Entry(
        int(shard["rows"]),
        None if nbytes is None else int(nbytes),
        None if sha256 is None else str(sha256),
    )


def read_manifests(folder: Path) -> dict[str, Manifest]:
    """The manifest of a folder under the name "", and those of its ranks that it does not contain yet.

    Raises:
        InputError: a manifest is damaged or missing, one has another fingerprint, or the folder is not a folder of
            shards.
    """
    manifests: dict[str, Manifest] = {}
    if (whole := read_manifest(folder)) is not None:
        manifests[""] = whole
    for rank in rank_folders(folder) if folder.is_dir() else []:
        if (
            os.path.lexists(folder / rank / MANIFEST)
            and (manifest := read_manifest(folder / rank)) is not None
        ):
            manifests[rank] = manifest
    for rank, manifest in manifests.items():
        check_same(folder / rank, manifest.fingerprint, _first(manifests))
    return manifests


def _first(manifests: Mapping[str, Manifest]) -> Fingerprint:
    return next(iter(manifests.values())).fingerprint


def check_replaceable(folder: Path) -> None:
    """Raise InputError if a folder to remove has other files than shards."""
    folders = [folder, *(folder / rank for rank in rank_folders(folder))] if folder.is_dir() else []
    for each in folders:
        if others := _content(each)[1]:
            raise InputError(
                f"{each} holds other files ({others[0]}), which --force does not remove: name a new folder"
            )


def _content(folder: Path) -> tuple[list[str], list[str]]:
    """The names of shards, and of other visible files, in a folder."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        ranks = rank_folders(folder)
    except FileNotFoundError:
        names, ranks = [], []
    except OSError as error:
        raise OutputError.reading(folder, error) from error
    ours = {MANIFEST, FAILURES, *ranks}
    others = [name for name in names if shard_number(name) is None and name not in ours]
    return [name for name in names if shard_number(name) is not None], others
