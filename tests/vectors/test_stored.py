"""Folders of shards as one sequence of rows: their order, their blocks, and what is in memory."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.shard_folders import MADE_BY, filled, rows, without_checksums

from mlx_aimv2.errors import InputError
from mlx_aimv2.vectors import stored
from mlx_aimv2.vectors.files import Rows, write
from mlx_aimv2.vectors.manifest import MANIFEST, Entry, Manifest
from mlx_aimv2.vectors.shards import SHARD_FORMATS, write_shard
from mlx_aimv2.vectors.stored import StoredVectors

every_format = pytest.mark.parametrize("ending", SHARD_FORMATS)


def in_shards(folder, positions, ending=".safetensors", size=3):
    """A folder in which row k, the vector ``rows(N)[k]``, has position ``positions[k]``."""
    folder.mkdir()
    vectors, entries = rows(len(positions)), {}
    for number, start in enumerate(range(0, len(positions), size)):
        part, file = slice(start, start + size), f"embeddings-{number:05d}{ending}"
        block = vectors[part]
        names = [f"{position:04d}" for position in positions[part]]
        write_shard(
            folder / file, names, None, positions[part], Rows(block.shape, lambda b=block: [b]), MADE_BY
        )
        entries[file] = Entry.of(folder / file, len(block))
    Manifest(MADE_BY, entries).write(folder)
    return vectors[np.argsort(positions)]


@every_format
@pytest.mark.parametrize("block", [1, 4, 100])
@pytest.mark.parametrize(
    "positions", [list(range(10)), [5, 1, 9, 0, 2, 3, 8, 7, 6, 4]], ids=["sorted", "mixed"]
)
def test_rows_come_in_the_order_of_their_positions(tmp_path, monkeypatch, ending, block, positions):
    monkeypatch.setattr(stored, "BLOCK", block)
    expected = in_shards(tmp_path / "v", positions, ending)
    vectors = StoredVectors(tmp_path / "v")
    assert vectors.names == [f"{number:04d}" for number in range(10)] and vectors.fingerprint == MADE_BY
    assert vectors.rows.shape == (10, 5)
    for _ in range(2):
        blocks = list(vectors.rows.blocks())
        assert all(len(each) <= block for each in blocks)
        np.testing.assert_array_equal(np.concatenate(blocks), expected)
    np.testing.assert_array_equal(vectors.array(), expected)


def test_few_shards_that_cannot_be_mapped_are_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "BLOCK", 4)
    loads, real = [], stored.map_vectors
    monkeypatch.setattr(stored, "map_vectors", lambda path: loads.append(path.name) or real(path))
    positions = [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1]  # the last one failed at first
    expected = in_shards(tmp_path / "v", positions, ".parquet")
    np.testing.assert_array_equal(np.concatenate(list(StoredVectors(tmp_path / "v").rows.blocks())), expected)
    assert len(loads) <= 5  # four shards, and one of them once more


@pytest.mark.parametrize("ending", [".safetensors", ".npz"])
def test_one_shard_in_order_is_mapped(tmp_path, ending):
    in_shards(tmp_path / "v", [0, 1, 2], ending)
    assert isinstance(StoredVectors(tmp_path / "v").array(), np.memmap)
    in_shards(tmp_path / "w", [2, 1, 0], ending)
    assert not isinstance(StoredVectors(tmp_path / "w").array(), np.memmap)


def test_shards_without_positions_stand_where_they_were_written(tmp_path):
    folder = tmp_path / "v"
    folder.mkdir()
    for number, names in enumerate((["a", "b"], ["c"])):
        write(folder / f"embeddings-0000{number}.npz", names, rows(len(names))[:, :3], MADE_BY)
    shards = {f"embeddings-0000{number}.npz": Entry(count) for number, count in enumerate((2, 1))}
    Manifest(MADE_BY, shards).write(folder)
    without_checksums(folder)
    filled(folder, ["dd", "e"])
    assert StoredVectors(folder).names == ["a", "b", "c", "dd", "e"]


@pytest.mark.parametrize("content", ["none", "empty"])
def test_a_folder_without_vectors_is_refused(tmp_path, content):
    if content == "empty":
        Manifest(MADE_BY, {}).write(tmp_path)
        assert (tmp_path / MANIFEST).exists()
    with pytest.raises(InputError, match="holds no vectors"):
        StoredVectors(tmp_path)
