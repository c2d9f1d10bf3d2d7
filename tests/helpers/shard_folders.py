"""Folders of shards with vectors of the test's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors import safe_open

from mlx_aimv2.vectors.manifest import MANIFEST
from mlx_aimv2.vectors.shard_folder import ShardFolder

MADE_BY = {"name": "tiny", "checkpoint": "0123abcd", "pooling": "mean", "normalized": True, "revision": None}


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 5)).astype(np.float32)


def read_file(path: Path) -> tuple[list[str], np.ndarray, dict]:
    """Names, vectors and fingerprint of a shard, read with the library of its format."""
    if path.suffix == ".npz":
        with np.load(path) as data:
            return data["paths"].tolist(), data["embeddings"], json.loads(str(data["fingerprint"]))
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        vectors = np.array(table["embedding"].to_pylist(), np.float32)
        return table["path"].to_pylist(), vectors, json.loads(table.schema.metadata[b"fingerprint"])
    with safe_open(path, "numpy") as file:
        note = file.metadata()
        return json.loads(note["paths"]), file.get_tensor("embeddings"), json.loads(note["fingerprint"])


def opened(folder: Path, fingerprint: dict = MADE_BY, rows: int = 2) -> ShardFolder:
    shards = ShardFolder(folder, fingerprint)
    shards.full_rows = rows
    return shards


def filled(
    folder: Path, names: list[str], rows_in_shard: int = 2, fingerprint: dict = MADE_BY
) -> ShardFolder:
    shards = opened(folder, fingerprint, rows_in_shard)
    for name in names:
        shards.add(name, np.full(3, len(name), np.float32))
    shards.close()
    return shards


def done(shards: ShardFolder) -> set[str]:
    return {row.name for row in shards.index}


def content(folder: Path) -> list[str]:
    """All names in the shards that the manifest lists, in order."""
    manifest = json.loads((folder / MANIFEST).read_text())
    return [name for shard in manifest["shards"] for name in read_file(folder / shard["file"])[0]]


def without_checksums(folder: Path) -> None:
    """Rewrite the manifest as older versions wrote it."""
    manifest = json.loads((folder / MANIFEST).read_text())
    shards = [{"file": shard["file"], "rows": shard["rows"]} for shard in manifest["shards"]]
    (folder / MANIFEST).write_text(json.dumps({"fingerprint": manifest["fingerprint"], "shards": shards}))
