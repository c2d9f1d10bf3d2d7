"""Folders of shards with vectors of the test's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mlx_aimv2.vectors.shard_folder import ShardFolder
from mlx_aimv2.vectors.shards import MANIFEST

MADE_BY = {"name": "tiny", "checkpoint": "0123abcd", "pooling": "mean", "normalized": True, "revision": None}


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 5)).astype(np.float32)


def read_npz(path: Path) -> tuple[list[str], np.ndarray, dict]:
    with np.load(path) as data:
        return data["paths"].tolist(), data["embeddings"], json.loads(str(data["fingerprint"]))


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
    return [name for shard in manifest["shards"] for name in read_npz(folder / shard["file"])[0]]
