"""The formats of shards: all hold the same, and what they write is read with other libraries."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.shard_folders import MADE_BY, read_file, rows

from mlx_aimv2.errors import InputError
from mlx_aimv2.vectors.files import Rows
from mlx_aimv2.vectors.options import SHARD_FORMATS as NAMES
from mlx_aimv2.vectors.reading import read_vectors
from mlx_aimv2.vectors.shard_folder import ShardFolder
from mlx_aimv2.vectors.shard_rows import FileMark
from mlx_aimv2.vectors.shards import SHARD_FORMATS, map_vectors, read_shard, write_shard

MARKS = [
    FileMark("/images/caf\udce9/1.jpg", 10, 1_000_000_000_000_000_001, "ab" * 16),
    FileMark("/images/x.tar", 2**40, 2, "", "/写真 📷.png"),
    FileMark(),
]
every_format = pytest.mark.parametrize("ending", SHARD_FORMATS)


def test_every_format_is_an_option():
    assert {f".{name}" for name in NAMES} == SHARD_FORMATS.keys()


@every_format
@pytest.mark.parametrize("marks", [MARKS, MARKS[:1] * 3, None], ids=["parts", "files", "unknown"])
def test_names_marks_and_positions_come_back(tmp_path, ending, marks):
    path, vectors = tmp_path / f"embeddings-00000{ending}", rows(3)
    blocks = Rows((3, 5), lambda: [vectors[:1], vectors[1:]])
    write_shard(path, ["a", "ü", "c"], marks, [4, 0, 2**40], blocks, MADE_BY)
    shard = read_shard(path)
    assert shard.names == ["a", "ü", "c"] and shard.fingerprint == MADE_BY and shard.shape == (3, 5)
    assert shard.marks == marks and shard.positions == [4, 0, 2**40]
    np.testing.assert_array_equal(map_vectors(path), vectors)
    names, found, note = read_file(path)
    assert names == shard.names and note == MADE_BY
    np.testing.assert_array_equal(found, vectors)
    found = read_vectors(path)  # a shard is a file of vectors too
    assert found.paths == ("a", "ü", "c") and np.array_equal(found.embeddings, vectors)


@every_format
def test_a_folder_goes_on_in_its_format_or_in_another(tmp_path, ending):
    def run(names, **options):
        shards = ShardFolder(tmp_path, MADE_BY, **options)
        for name in names:
            shards.add(name, np.full(3, len(name), np.float32))
        shards.close()

    run(["a", "bb"], shard_format=ending[1:])
    run(["ccc"])
    assert [path.suffix for path in sorted(tmp_path.glob("embeddings*"))] == [ending, ending]
    for number, other in enumerate(SHARD_FORMATS, 4):
        run(["x" * number], shard_format=other[1:])
    assert {path.suffix for path in tmp_path.glob("embeddings*")} == SHARD_FORMATS.keys()
    assert read_vectors(tmp_path).embeddings[:, 0].tolist() == [1, 2, 3, 4, 5, 6]


@every_format
@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"something else, and long enough to be a header"])
def test_damaged_files_are_named(tmp_path, ending, damage):
    path = tmp_path / f"embeddings-00000{ending}"
    path.write_bytes(damage)
    for read in (read_shard, map_vectors):
        with pytest.raises(InputError, match=rf"embeddings-00000\{ending} (cannot be read|holds no vectors)"):
            read(path)


def test_columns_that_do_not_fit_are_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "embeddings-00000.safetensors"
    note = {"paths": '["a", "b"]', "fingerprint": "{}", "columns": json.dumps({"positions": [1]})}
    save_file({"embeddings": rows(2)}, path, metadata=note)
    with pytest.raises(InputError, match="it has not one name for each row"):
        read_shard(path)


def test_token_grids_are_refused_by_parquet_and_stay_for_another_format(tmp_path):
    shards = ShardFolder(tmp_path, MADE_BY, shard_format="parquet")
    shards.add("a", np.zeros((2, 2, 3), np.float32))
    with pytest.raises(InputError, match=r"one vector per row: use \.npz for token grids"):
        shards.close()
    assert [name for name, _ in shards.waiting()] == ["a"]
