"""Tables of LanceDB: what is written, replaced and refused."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from helpers.shard_folders import MADE_BY, rows

from mlx_aimv2.errors import ExistsError, InputError, MissingExtraError, OutputError
from mlx_aimv2.vectors.files import Rows
from mlx_aimv2.vectors.lance import check_lancedb, write_lancedb

NAMES = ["a.jpg", "sub/ü 写真 📷.heic", "c.jpg"]


def written(path, count=3, table="embeddings"):
    vectors = rows(count)
    names = [*NAMES, *(f"{number}.jpg" for number in range(3, count))][:count]
    write_lancedb(path, names, Rows(vectors.shape, lambda: np.array_split(vectors, 2)), MADE_BY, table)
    return names, vectors


def read(path, table="embeddings"):
    lancedb = pytest.importorskip("lancedb")
    found = lancedb.connect(str(path)).open_table(table).to_arrow()
    vectors = np.array(found["embedding"].to_pylist(), np.float32)
    return found["path"].to_pylist(), vectors, json.loads(found.schema.metadata[b"fingerprint"])


def test_a_table_holds_every_vector_in_order(tmp_path):
    pytest.importorskip("lancedb")
    names, vectors = written(tmp_path / "x.lancedb", 3000)
    found, values, note = read(tmp_path / "x.lancedb")
    assert found == names and note == MADE_BY
    np.testing.assert_array_equal(values, vectors)


def test_a_table_is_replaced_and_its_old_version_takes_no_room(tmp_path):
    lancedb = pytest.importorskip("lancedb")
    path = tmp_path / "x.lancedb"
    written(path, 2, "other")
    for _ in range(3):
        written(path, 3)
    assert len(read(path)[0]) == 3 and len(read(path, "other")[0]) == 2
    assert len(lancedb.connect(str(path)).open_table("embeddings").list_versions()) == 1
    assert len(list(path.glob("embeddings.lance/data/*"))) == 1


def test_a_table_that_exists_is_refused(tmp_path):
    pytest.importorskip("lancedb")
    path = tmp_path / "x.lancedb"
    check_lancedb(path, NAMES, "embeddings", False)
    written(path)
    with pytest.raises(
        ExistsError, match=r"has a table embeddings already: name another with --table, or replace"
    ):
        check_lancedb(path, NAMES, "embeddings", False)
    check_lancedb(path, NAMES, "embeddings", True)
    check_lancedb(path, NAMES, "other", False)


def test_a_table_that_was_not_finished_does_not_count(tmp_path):
    pytest.importorskip("lancedb")
    path = tmp_path / "x.lancedb"

    def fails():
        yield rows(2)
        raise OSError("the disk is gone")

    with pytest.raises(OutputError, match=r"x\.lancedb cannot be written: .*the disk is gone$"):
        write_lancedb(path, NAMES, Rows((3, 5), fails), MADE_BY)
    check_lancedb(path, NAMES, "embeddings", False)
    written(path)
    assert read(path)[0] == NAMES


@pytest.mark.parametrize(
    ("place", "names", "table", "error", "message"),
    [
        (
            "x.lancedb",
            ["caf\udce9.jpg"],
            "t",
            InputError,
            r"'caf\\udce9\.jpg' is not UTF-8, which LanceDB cannot",
        ),
        ("x.lancedb", [], "a/b", InputError, r"--table 'a/b' must be made of letters, digits, _ and -"),
        ("x.lancedb", [], "", InputError, r"--table '' must be made of letters"),
        ("file.lancedb", [], "t", ExistsError, r"file\.lancedb is not a folder: name another"),
        ("no/x.lancedb", [], "t", OutputError, r"x\.lancedb cannot be written: there is no folder .*no$"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, place, names, table, error, message):
    pytest.importorskip("lancedb")
    (tmp_path / "file.lancedb").touch()
    with pytest.raises(error, match=message):
        check_lancedb(tmp_path / place, names, table, False)


def test_token_grids_are_refused(tmp_path):
    pytest.importorskip("lancedb")
    with pytest.raises(InputError, match=r"holds one vector per row: use \.npz for token grids"):
        write_lancedb(tmp_path / "x.lancedb", ["a"], Rows((1, 2, 2, 3), list), MADE_BY)


def test_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(
        MissingExtraError, match=r"LanceDB needs the package lancedb: pip install 'mlx-aimv2\[lance"
    ):
        check_lancedb(tmp_path / "x.lancedb", [], "t", False)
