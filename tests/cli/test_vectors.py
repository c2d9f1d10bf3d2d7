import numpy as np
import pytest
from helpers.shard_folders import filled

from mlx_aimv2.vectors.reading import read_vectors


@pytest.mark.parametrize("ending", [".parquet", ".npy"])
def test_a_folder_of_vectors_is_written_as_a_file(cli, pair, photos, tmp_path, ending):
    assert cli("embed", photos, "--model", pair, "-o", f"{tmp_path}/v/").returncode == 0
    done = cli("vectors", tmp_path / "v", "-o", tmp_path / f"out{ending}")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"mlx-aimv2: wrote 3 vectors to {tmp_path}/out{ending}\n"
    found, expected = read_vectors(tmp_path / f"out{ending}"), read_vectors(tmp_path / "v")
    assert found.paths == expected.paths and found.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(found.embeddings, expected.embeddings)


def test_a_table_of_a_database_is_written_once(cli, tmp_path):
    lancedb = pytest.importorskip("lancedb")
    filled(tmp_path / "v", ["a.jpg", "b.jpg"])
    arguments = ["vectors", tmp_path / "v", "-o", tmp_path / "x.lancedb", "--table", "photos"]
    assert cli(*arguments).returncode == 0
    assert lancedb.connect(str(tmp_path / "x.lancedb")).open_table("photos").count_rows() == 2
    again = cli(*arguments)
    assert again.returncode == 2 and "has a table photos already" in again.stderr
    assert cli(*arguments, "--force").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["v"], 2, "name the file to write with -o"),
        (["v", "-o", "out.csv"], 2, "no format ends in .csv"),
        (["nothing", "-o", "out.npz"], 2, "nothing: there is no such file"),
        (
            ["v", "-o", "out.npz", "--table", "x"],
            2,
            "--table is for a LanceDB database, and out.npz is a file",
        ),
        (["v", "-o", "there.npz"], 2, "there.npz exists already: name another, or replace it with --force"),
    ],
)
def test_mistakes_get_one_clear_line(cli, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    filled(tmp_path / "v", ["a.jpg"])
    (tmp_path / "there.npz").touch()
    done = cli("vectors", *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr and done.stderr.count("\n") == 1
