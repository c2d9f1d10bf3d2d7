"""A folder of embeddings in shards, for runs too large for one file: written as it goes, continued, never mixed."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoints.atomic import replacing
from .errors import InputError, OutputError
from .vectors import Fingerprint, check_grid, write

# A shard is full at so many rows, bytes, or seconds of work.
SHARD_ROWS, SHARD_BYTES, SHARD_S = 10_000, 256 * 2**20, 300
SHARD_NAME, FIRST, LOCK = re.compile(r"embeddings-\d{5,}\.npz"), "embeddings-00000.npz", ".lock"
MANIFEST = "manifest.json"
UNREADABLE = (  # what np.load raises for files that are no .npz
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
)


def lock_folder(folder: Path) -> int:
    """Keep other runs out of a folder of shards; the system lets go of it when this process ends.

    Returns:
        The descriptor that holds the lock.

    Raises:
        OutputError: another run is writing there, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to: {error.strerror or error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise OutputError(
            f"another run is writing to {folder}: wait for it, or name another folder"
        ) from error
    return descriptor


class ShardFolder:
    """A folder of `.npz` shards with a manifest, which a run that was cut short continues.

    A shard appears whole or not at all, and the manifest names only shards that are there.
    """

    def __init__(self, folder: Path, fingerprint: Fingerprint, rows: int = SHARD_ROWS) -> None:
        """Open the folder, or make it.

        Raises:
            InputError: the folder holds vectors of another model, or something else altogether.
            OutputError: the folder cannot be made.
        """
        self.folder, self.fingerprint, self.rows = folder, dict(fingerprint), rows
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made: {error.strerror or error}") from error
        self.shards = self._read_manifest()
        self._since = time.monotonic()
        self._names: list[str] = []
        self._vectors: list[np.ndarray] = []

    def done(self) -> set[str]:
        """What earlier runs have already embedded.

        Raises:
            InputError: a shard is gone or damaged.
        """
        finished: set[str] = set()
        for shard in self.shards:
            path = self.folder / shard["file"]
            try:
                with path.open("rb") as file, np.load(file) as data:
                    finished.update(data["paths"].tolist())
            except UNREADABLE as error:
                raise InputError(
                    f"{path} is in the manifest and cannot be read ({error}): name a new folder"
                ) from error
        return finished

    def add(self, name: str, vector: np.ndarray) -> None:
        """Take one vector; a full shard is written at once.

        Raises:
            InputError: a token grid of another size than the one before.
            OutputError: the shard cannot be written.
        """
        check_grid(name, vector, self._vectors)
        self._names.append(name)
        self._vectors.append(vector)
        held = len(self._names)
        if held >= self.rows or held * vector.nbytes >= SHARD_BYTES or self._age() >= SHARD_S:
            self.close()

    def _age(self) -> float:
        return time.monotonic() - self._since

    def close(self) -> None:
        """Write what has been taken since the last full shard."""
        self._since = time.monotonic()
        if not self._names:
            return
        file = f"embeddings-{len(self.shards):05d}.npz"
        write(self.folder / file, self._names, np.stack(self._vectors), self.fingerprint)
        shards = [*self.shards, {"file": file, "rows": len(self._names)}]
        manifest = {"fingerprint": self.fingerprint, "shards": shards}
        with replacing(self.folder / MANIFEST) as partial:
            partial.write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        self.shards, self._names, self._vectors = shards, [], []

    def _read_manifest(self) -> list[dict[str, Any]]:
        path = self.folder / MANIFEST
        if not path.exists():
            others = [p.name for p in self.folder.iterdir() if not p.name.startswith(".")]
            foreign = [
                name for name in others if name != FIRST
            ]  # a run killed between shard and manifest left it
            if foreign:
                raise InputError(f"{self.folder} holds other files ({foreign[0]}): name a new folder")
            return []
        try:
            manifest = json.loads(path.read_bytes())
            made_by = dict(manifest["fingerprint"])
            shards = [{"file": str(s["file"]), "rows": int(s["rows"])} for s in manifest["shards"]]
            odd = next(
                (shard["file"] for shard in shards if not SHARD_NAME.fullmatch(str(shard["file"]))), None
            )
            if odd is not None:
                raise ValueError(f"it names {odd!r}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not a manifest of embeddings: {error}") from error
        if _identity(made_by) != _identity(self.fingerprint):
            raise InputError(
                f"{self.folder} holds vectors of {describe(made_by)}, not of {describe(self.fingerprint)}:"
                " vectors of different models cannot be mixed; name a new folder"
            )
        return shards


def _identity(fingerprint: Fingerprint) -> dict[str, Any]:
    """What decides whether vectors may be compared: not where the checkpoint lay, which its hash makes irrelevant."""
    return {key: value for key, value in fingerprint.items() if key not in ("name", "revision", "layout")}


def describe(fingerprint: Fingerprint) -> str:
    """A fingerprint in a few words."""
    parts = ("name", "revision", "checkpoint", "adapter", "dtype", "quantization", "pooling", "preprocessing")
    words = [str(fingerprint[part]) for part in parts if fingerprint.get(part)]
    if "normalized" in fingerprint:
        words.append("normalized" if fingerprint["normalized"] else "not normalized")
    return " ".join(words)
