"""Vectors in another format: the same rows in the same order, or a refusal before any work."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from helpers.shard_folders import MADE_BY, filled, rows

from mlx_aimv2.errors import ExistsError, InputError, MissingExtraError
from mlx_aimv2.vectors import transfer as module
from mlx_aimv2.vectors.files import WRITERS, write
from mlx_aimv2.vectors.reading import read_vectors
from mlx_aimv2.vectors.transfer import transfer

NAMES = [f"{'x' * number}.jpg" for number in range(1, 8)]
every_format = pytest.mark.parametrize("ending", WRITERS)


@every_format
def test_a_folder_becomes_a_file(tmp_path, ending):
    filled(tmp_path / "v", NAMES)
    assert transfer(tmp_path / "v", tmp_path / f"out{ending}") == 7
    found, expected = read_vectors(tmp_path / f"out{ending}"), read_vectors(tmp_path / "v")
    assert found.paths == tuple(NAMES) and found.fingerprint == MADE_BY
    assert found.embeddings.dtype == np.float32
    np.testing.assert_array_equal(found.embeddings, expected.embeddings)


@every_format
def test_a_file_becomes_another(tmp_path, ending):
    write(tmp_path / f"v{ending}", ["a", "b"], rows(2), MADE_BY)
    for other in WRITERS:
        assert transfer(tmp_path / f"v{ending}", tmp_path / f"out{other}", force=True) == 2
        np.testing.assert_array_equal(read_vectors(tmp_path / f"out{other}").embeddings, rows(2))


def test_a_folder_becomes_a_table_of_lancedb(tmp_path):
    lancedb = pytest.importorskip("lancedb")
    filled(tmp_path / "v", NAMES)
    target = tmp_path / "x.lancedb"
    assert transfer(tmp_path / "v", target, table="photos") == 7
    found = lancedb.connect(str(target)).open_table("photos").to_arrow()
    assert found["path"].to_pylist() == NAMES
    assert [row[0] for row in found["embedding"].to_pylist()] == [len(name) for name in NAMES]
    with pytest.raises(ExistsError, match="has a table photos already"):
        transfer(tmp_path / "v", target, table="photos")
    assert transfer(tmp_path / "v", target, force=True, table="photos") == 7


def test_the_vectors_of_a_folder_are_read_block_by_block(tmp_path, monkeypatch):
    filled(tmp_path / "v", NAMES)
    monkeypatch.setattr("mlx_aimv2.vectors.stored.BLOCK", 2)
    sizes, real = [], module.write

    def counting(path, names, rows, fingerprint):
        sizes.extend(len(block) for block in rows.blocks())
        real(path, names, rows, fingerprint)

    monkeypatch.setattr(module, "write", counting)
    transfer(tmp_path / "v", tmp_path / "out.npy")
    assert sizes == [2, 2, 2, 1]


def test_what_exists_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "out.npz").write_text("mine")
    with pytest.raises(ExistsError, match=r"out\.npz exists already"):
        transfer(tmp_path / "nothing", tmp_path / "out.npz")
    filled(tmp_path / "v", NAMES)
    transfer(tmp_path / "v", tmp_path / "out.npz", force=True)
    assert len(read_vectors(tmp_path / "out.npz").paths) == 7


@pytest.mark.parametrize(
    ("source", "target", "error", "message"),
    [
        ("nothing", "out.npz", InputError, "there is no such file"),
        ("empty", "out.npz", InputError, "empty holds no vectors"),
        ("v", "out.csv", InputError, r"no format ends in \.csv"),
        ("strange", "out.parquet", InputError, r"is not UTF-8, which \.parquet cannot hold: use \.npz"),
        ("strange", "out.lancedb", InputError, r"is not UTF-8, which LanceDB cannot hold: use \.npz"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path, source, target, error, message):
    if target.endswith(".lancedb"):
        pytest.importorskip("lancedb")
    (tmp_path / "empty").mkdir()
    filled(tmp_path / "v", NAMES)
    filled(tmp_path / "strange", ["caf\udce9.jpg"])
    with pytest.raises(error, match=message):
        transfer(tmp_path / source, tmp_path / target)
    assert not (tmp_path / target).exists()


def test_lancedb_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(MissingExtraError, match=r"needs the package lancedb"):
        transfer(tmp_path / "v", tmp_path / "x.lancedb")
