"""Vectors are read back from everything that was written, and nothing else is taken for vectors."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from helpers.shard_folders import without_checksums
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_aimv2.errors import InputError, MissingExtraError
from mlx_aimv2.vectors.files import NOTE, PATHS, WRITERS, json_line, write
from mlx_aimv2.vectors.reading import READERS, Vectors, read_vectors
from mlx_aimv2.vectors.shard_folder import ShardFolder

MADE_BY = {"name": "tiny", "checkpoint": "0123abcd", "pooling": "mean", "normalized": True, "revision": None}
NAMES = ("a.jpg", "sub/ü 写真 📷.heic", "\u2028.jpg", "z\x0c.png")
ROWS = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
every_format = pytest.mark.parametrize("ending", WRITERS)


def shards(folder, names=NAMES, rows=ROWS, size=3):
    out = ShardFolder(folder, MADE_BY)
    out.full_rows = size
    for name, row in zip(names, rows, strict=True):
        out.add(name, row)
    out.close()
    return folder


def assert_as_written(vectors: Vectors, rows=ROWS) -> None:
    assert vectors.paths == NAMES and vectors.fingerprint == MADE_BY
    assert vectors.embeddings.dtype == np.float32
    np.testing.assert_array_equal(vectors.embeddings, rows)


def test_every_format_is_read():
    assert READERS.keys() == WRITERS.keys()


@every_format
def test_what_was_written_comes_back(tmp_path, ending):
    write(tmp_path / f"v{ending}", NAMES, ROWS, MADE_BY)
    assert_as_written(read_vectors(tmp_path / f"v{ending}"))
    assert_as_written(read_vectors(str(tmp_path / f"v{ending}")))


@pytest.mark.parametrize("size", [1, 3, 4, 9])
def test_a_folder_of_shards_comes_back(tmp_path, size):
    assert_as_written(read_vectors(shards(tmp_path / "v", size=size)))
    assert_as_written(read_vectors(f"{tmp_path}/v/"))


@pytest.mark.parametrize("ending", [*(e for e in WRITERS if e != ".parquet"), "/"])
def test_token_grids_come_back(tmp_path, ending):
    grids = np.random.default_rng(0).standard_normal((4, 2, 3, 5)).astype(np.float32)
    path = tmp_path / f"v{ending}"
    shards(path, rows=grids) if ending == "/" else write(path, NAMES, grids, MADE_BY)
    assert_as_written(read_vectors(path), grids)


@pytest.mark.parametrize("ending", [".npz", ".npy", ".safetensors"])
def test_what_the_format_allows_is_mapped_and_not_read(tmp_path, ending):
    write(tmp_path / f"v{ending}", NAMES, ROWS, MADE_BY)
    assert isinstance(read_vectors(tmp_path / f"v{ending}").embeddings, np.memmap)


@every_format
def test_files_through_a_link_come_back(tmp_path, ending):
    (tmp_path / "disk").mkdir()
    write(tmp_path / "disk" / f"real{ending}", NAMES, ROWS, MADE_BY)
    (tmp_path / f"v{ending}").symlink_to(f"disk/real{ending}")
    assert_as_written(read_vectors(tmp_path / f"v{ending}"))


def test_a_path_in_the_home_folder_comes_back(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "v.npz", NAMES, ROWS, MADE_BY)
    assert_as_written(read_vectors("~/v.npz"))


def test_files_of_numpy_and_an_older_version_come_back(tmp_path):
    note = np.array(json.dumps(MADE_BY))
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "v.npz", embeddings=ROWS, paths=np.array(NAMES), fingerprint=note)
        assert_as_written(read_vectors(tmp_path / "v.npz"))


@pytest.mark.parametrize("name", ["o.jsonl", "o.txt", "o", "o.json"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("key", ["path", "text"])
def test_lines_from_a_pipe_come_back_whatever_their_file_is_called(tmp_path, name, mark, key):
    lines = "".join(json_line(name, row, key) + "\n" for name, row in zip(NAMES, ROWS, strict=True))
    (tmp_path / name).write_bytes(mark + lines.encode())
    found = read_vectors(tmp_path / name)
    assert found.paths == NAMES and found.fingerprint == {}
    np.testing.assert_array_equal(found.embeddings, ROWS)


def test_names_that_are_not_utf8_come_back(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    for ending in (".npz", ".npy", ".safetensors", ".jsonl"):
        write(tmp_path / f"v{ending}", [name], ROWS[:1], MADE_BY)
        assert read_vectors(tmp_path / f"v{ending}").paths == (name,)


# --- refusals


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        read_vectors(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_what_is_not_there_is_named(tmp_path):
    assert "there is no such file" in refused(tmp_path / "v.npz")
    (tmp_path / "v.npz.part").mkdir()
    assert "what a run left that was cut short is in" in refused(tmp_path / "v.npz")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("v.csv", "no format ends in .csv"),
        ("v", "the name has no extension"),
        ("v.bin", "no format ends in .bin"),
    ],
)
def test_what_has_no_format_is_named(tmp_path, name, problem):
    (tmp_path / name).write_text("1,2,3")
    assert problem in refused(tmp_path / name)


def test_a_folder_without_vectors_is_named(tmp_path):
    assert "holds no vectors" in refused(tmp_path)
    (tmp_path / "holiday.jpg").touch()
    assert "holds other files (holiday.jpg)" in refused(tmp_path)


@pytest.mark.parametrize(("ending", "lacking"), [(".npy", NOTE), (".npy", PATHS)])
def test_a_missing_companion_is_named(tmp_path, ending, lacking):
    write(tmp_path / f"v{ending}", NAMES, ROWS, MADE_BY)
    (tmp_path / "v").with_suffix(lacking).unlink()
    assert f"lacks v{lacking}, which is written beside it" in refused(tmp_path / "v.npy")


@pytest.mark.parametrize("lines", [b"a\n", b"a\nb\nc\nd\ne\n", b"a\nb\nc\nd"])
def test_names_that_do_not_fit_are_named(tmp_path, lines):
    write(tmp_path / "v.npy", NAMES, ROWS, MADE_BY)
    (tmp_path / "v.paths.txt").write_bytes(lines)
    assert "names for" in (message := refused(tmp_path / "v.npy")) or "cut off" in message


@pytest.mark.parametrize("kind", ["float64", "int32", "object", "one axis"])
@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_other_arrays_are_named(tmp_path, ending, kind):
    array = ROWS[:, 0] if kind == "one axis" else ROWS.astype(kind)
    note = np.array(json.dumps(MADE_BY))
    if ending == ".npz":
        np.savez(tmp_path / "v.npz", embeddings=array, paths=np.array(NAMES), fingerprint=note)
    else:
        write(tmp_path / "v.npy", NAMES, ROWS, MADE_BY)
        np.save(tmp_path / "v.npy", array, allow_pickle=True)
    assert "not float32 vectors" in (message := refused(tmp_path / f"v{ending}")) or "than numbers" in message


def test_other_tensors_are_named(tmp_path):
    from safetensors.numpy import save_file

    save_file({"weight": ROWS}, tmp_path / "v.safetensors")
    assert "holds no vectors that `embed` wrote" in refused(tmp_path / "v.safetensors")
    note = {"paths": json.dumps(NAMES), "fingerprint": "{}"}
    save_file({"embeddings": ROWS.astype(np.float16)}, tmp_path / "v.safetensors", metadata=note)
    assert "holds F16, not float32" in refused(tmp_path / "v.safetensors")
    save_file({"embeddings": ROWS}, tmp_path / "v.safetensors", metadata={**note, "paths": '"a"'})
    assert "its names are no list of texts" in refused(tmp_path / "v.safetensors")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"path": "b", "embedding": [1, 2', "line 2"),
        ('{"embedding": [1, 2]}', "it lacks 'text'"),
        ('{"path": "b"}', "it lacks 'embedding'"),
        ('{"path": "b", "embedding": ["1", "2"]}', "a list of numbers"),
        ('{"path": "b", "embedding": [1, [2]]}', "line 2"),
        ('{"path": "b", "embedding": [1]}', "it has the shape (1,), and those before (2,)"),
        ('{"path": "b", "embedding": []}', "a list of numbers"),
        ('{"path": "b", "embedding": [1e999, 2]}', "not finite"),
        ('{"path": "b", "embedding": [NaN, 2]}', "not finite"),
        ('{"path": 7, "embedding": [1, 2]}', "it needs a text"),
        ("[1, 2]", "line 2"),
        ("17", "line 2"),
    ],
)
def test_a_line_that_is_no_vector_is_named(tmp_path, line, reason):
    (tmp_path / "o.jsonl").write_text(f'{{"path": "a", "embedding": [1, 2]}}\n{line}\n')
    message = refused(tmp_path / "o.jsonl")
    assert "line 2" in message and reason in message


def test_a_table_of_something_else_is_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for table in (
        pa.table({"path": ["a"], "label": ["b"]}),
        pa.table({"path": ["a"], "embedding": [[1.0, 2.0]]}),
        pa.table({"path": ["a"], "embedding": ["b"]}, metadata={"fingerprint": "{}"}),
    ):
        pq.write_table(table, tmp_path / "v.parquet")
        assert "holds no vectors that `embed` wrote" in refused(tmp_path / "v.parquet")


def test_parquet_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path / "v.parquet", NAMES, ROWS, MADE_BY)
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=r"Reading \.parquet needs the package pyarrow: pip install"):
        read_vectors(tmp_path / "v.parquet")


@pytest.mark.parametrize("damage", ["gone", "cut", "fewer", "other model", "other size", "checksum"])
def test_a_damaged_shard_is_named(tmp_path, damage):
    folder = shards(tmp_path / "v")
    shard = folder / "embeddings-00001.safetensors"
    if damage != "checksum":
        without_checksums(folder)
    names, rows, made_by = [NAMES[3]], ROWS[3:], MADE_BY
    if damage == "fewer":
        names, rows = ["a", "b"], ROWS[:2]
    elif damage == "other model":
        made_by = {**MADE_BY, "checkpoint": "ffff"}
    elif damage == "other size":
        rows = ROWS[3:, :2]
    elif damage == "checksum":
        rows = -rows
    write(shard, names, rows, made_by)
    if damage == "gone":
        shard.unlink()
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:100])
    message = refused(folder)
    assert "embeddings-00001.safetensors" in message or "different sizes" in message


QUICK = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(data=st.binary(max_size=300))
@every_format
def test_any_bytes_are_vectors_or_refused_in_one_line(tmp_path_factory, ending, data):
    folder = tmp_path_factory.getbasetemp() / f"any{ending}"
    folder.mkdir(exist_ok=True)
    (folder / f"v{ending}").write_bytes(data)
    refused(folder / f"v{ending}")


@QUICK
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.booleans())
@pytest.mark.parametrize("ending", [*WRITERS, "/"])
def test_a_damaged_file_is_read_as_it_is_or_refused_in_one_line(tmp_path_factory, ending, at, value, cut):
    folder = tmp_path_factory.getbasetemp() / f"damaged{ending.strip('/.')}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / (f"v{ending}" if ending != "/" else "v")
    if ending == "/":
        shards(path)
        victim = path / "embeddings-00000.safetensors"
        without_checksums(path)
    else:
        write(path, NAMES, ROWS, MADE_BY)
        victim = path
    data = bytearray(victim.read_bytes())
    place = int(at * len(data))
    data[place] = value
    victim.write_bytes(data[:place] if cut else data)
    try:
        found = read_vectors(path)
    except InputError as error:
        assert "\n" not in str(error) and str(folder) in str(error)
        return
    assert len(found.paths) == len(found.embeddings) and found.embeddings.dtype == np.float32
    assert np.array(found.embeddings).ndim >= 2
