"""Files of embeddings: what comes back, what is refused, and what is left after a failure."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from mlx_aimv2.errors import InputError, MissingExtraError, OutputError
from mlx_aimv2.shard_folder import MANIFEST, ShardFolder, describe, lock_folder
from mlx_aimv2.vectors import WRITERS, check_target, json_line, write

MADE_BY = {"name": "tiny", "checkpoint": "0123abcd", "pooling": "mean", "normalized": True, "revision": None}
NAMES = ["a.jpg", "sub/ü 写真 📷.heic", 'a "quoted", name\t.png', "back\\slash.jpg", " ", "\u2028.jpg"]
UNDECODABLE = os.fsdecode(b"caf\xe9.jpg")
VALUES = np.array(
    [[0.1, -1 / 3, 1e-45], [3.4028235e38, -0.0, 1.17549435e-38], [1, 2, 3], [16777217, 0.3, 7e-7]], np.float32
)


def rows(count: int = len(NAMES)) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 5)).astype(np.float32)


def read_npz(path: Path) -> tuple[list[str], np.ndarray, dict]:
    with np.load(path) as data:
        return data["paths"].tolist(), data["embeddings"], json.loads(str(data["fingerprint"]))


def read_npy(path: Path) -> tuple[list[str], np.ndarray, dict]:
    lines = path.with_suffix(".paths.txt").read_bytes().split(b"\n")
    assert lines.pop() == b""
    note = json.loads(path.with_suffix(".fingerprint.json").read_text())
    return [os.fsdecode(line) for line in lines], np.load(path), note


def read_safetensors(path: Path) -> tuple[list[str], np.ndarray, dict]:
    with safe_open(path, "numpy") as file:
        note = file.metadata()
        return json.loads(note["paths"]), file.get_tensor("embeddings"), json.loads(note["fingerprint"])


def read_jsonl(path: Path) -> tuple[list[str], np.ndarray, dict]:
    items = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    vectors = np.array([item["embedding"] for item in items], np.float32)
    return [item["path"] for item in items], vectors, MADE_BY  # lines are for pipes and hold no fingerprint


def read_parquet(path: Path) -> tuple[list[str], np.ndarray, dict]:
    table = pq.read_table(path)
    vectors = np.array(table["embedding"].to_pylist(), np.float32)
    return table["path"].to_pylist(), vectors, json.loads(table.schema.metadata[b"fingerprint"])


READERS = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".safetensors": read_safetensors,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
}
every_format = pytest.mark.parametrize("ending", WRITERS)


# --- round trips


def test_every_format_is_read_here():
    assert READERS.keys() == WRITERS.keys()


@every_format
def test_names_vectors_and_fingerprint_come_back(tmp_path, ending):
    write(tmp_path / f"v{ending}", NAMES, rows(), MADE_BY)
    names, vectors, note = READERS[ending](tmp_path / f"v{ending}")
    assert names == NAMES and note == MADE_BY
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, rows())


@every_format
def test_float32_values_come_back_to_the_bit(tmp_path, ending):
    write(tmp_path / f"v{ending}", NAMES[:4], VALUES, MADE_BY)
    _, vectors, _ = READERS[ending](tmp_path / f"v{ending}")
    np.testing.assert_array_equal(vectors.view(np.uint32), VALUES.view(np.uint32))


@every_format
def test_a_single_row_comes_back(tmp_path, ending):
    write(tmp_path / f"v{ending}", ["one"], rows(1), MADE_BY)
    names, vectors, _ = READERS[ending](tmp_path / f"v{ending}")
    assert names == ["one"] and vectors.shape == (1, 5)


@pytest.mark.parametrize("ending", [e for e in WRITERS if e not in (".parquet",)])
def test_token_grids_come_back(tmp_path, ending):
    grids = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    write(tmp_path / f"v{ending}", ["a", "b"], grids, MADE_BY)
    np.testing.assert_array_equal(READERS[ending](tmp_path / f"v{ending}")[1], grids)


@pytest.mark.parametrize("ending", [e for e in WRITERS if e != ".npy"])
def test_a_line_break_in_a_name_comes_back(tmp_path, ending):
    write(tmp_path / f"v{ending}", ["a\nb.jpg", "c\r.jpg"], rows(2), MADE_BY)
    assert READERS[ending](tmp_path / f"v{ending}")[0] == ["a\nb.jpg", "c\r.jpg"]


@pytest.mark.parametrize("ending", [e for e in WRITERS if e != ".parquet"])
def test_a_name_that_is_not_utf8_keeps_its_bytes(tmp_path, ending):
    write(tmp_path / f"v{ending}", [UNDECODABLE, "a.jpg"], rows(2), MADE_BY)
    names, _, _ = READERS[ending](tmp_path / f"v{ending}")
    assert [os.fsencode(name) for name in names] == [b"caf\xe9.jpg", b"a.jpg"]


@every_format
def test_a_file_is_replaced(tmp_path, ending):
    write(tmp_path / f"v{ending}", NAMES, rows(), MADE_BY)
    write(tmp_path / f"v{ending}", ["new"], rows(1), MADE_BY)
    assert READERS[ending](tmp_path / f"v{ending}")[0] == ["new"]


def test_npy_writes_its_companions_beside_it(tmp_path):
    write(tmp_path / "set.1.npy", ["a"], rows(1), MADE_BY)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["set.1.fingerprint.json", "set.1.npy", "set.1.paths.txt"]


# --- lines


def test_a_line_has_the_shortest_decimals():
    line = json_line("a.jpg", np.array([0.1, -0.5, 1e-7], np.float32))
    assert line == '{"path": "a.jpg", "embedding": [0.1, -0.5, 1e-07]}'


def test_a_line_is_one_line_and_readable():
    assert json_line("ü\n", np.zeros(1, np.float32)) == '{"path": "ü\\n", "embedding": [0.0]}'


def test_a_line_is_valid_text_whatever_the_name():
    line = json_line(UNDECODABLE, np.zeros(1, np.float32))
    assert line.encode("utf-8") and json.loads(line)["path"] == UNDECODABLE


def test_a_line_may_be_about_a_text():
    assert json.loads(json_line("a dog", np.zeros(2, np.float32), "text")) == {
        "text": "a dog",
        "embedding": [0, 0],
    }


# --- refusals


@pytest.mark.parametrize(("name", "ending"), [("v.csv", ".csv"), ("v", "nothing"), (".npz", "nothing")])
@pytest.mark.parametrize("refuse", [check_target, lambda path: write(path, NAMES, rows(), MADE_BY)])
def test_an_ending_without_a_format_is_refused(tmp_path, name, ending, refuse):
    with pytest.raises(InputError, match=f"no format ends in {ending}; use .npz, .npy, .*end the name in /"):
        refuse(tmp_path / name)


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "v.npz").mkdir()
    with pytest.raises(OutputError, match=r"v\.npz is a folder: end its name in / for shards"):
        check_target(tmp_path / "v.npz")


@every_format
def test_a_folder_that_is_not_there_is_named(tmp_path, ending):
    path = tmp_path / "nowhere" / f"v{ending}"
    with pytest.raises(OutputError, match=rf"v\{ending} cannot be written: No such file or directory"):
        check_target(path)
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        write(path, NAMES, rows(), MADE_BY)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match=r"v\.npz cannot be written: Permission denied"):
        check_target(tmp_path / "v.npz")


@every_format
def test_a_good_target_is_accepted_and_left_alone(tmp_path, ending):
    (tmp_path / f"old{ending}").write_text("mine")
    check_target(tmp_path / f"old{ending}")
    check_target(tmp_path / f"new{ending}")
    assert [path.name for path in tmp_path.iterdir()] == [f"old{ending}"]
    assert (tmp_path / f"old{ending}").read_text() == "mine"


@pytest.mark.parametrize("refuse", [check_target, lambda path: write(path, NAMES, rows(), MADE_BY)])
def test_parquet_says_what_to_install(tmp_path, monkeypatch, refuse):
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=r"Writing \.parquet needs the package pyarrow: pip install"):
        refuse(tmp_path / "v.parquet")


@pytest.mark.parametrize(
    ("ending", "name", "message"),
    [
        (".npy", "a\nb", r"'a\\nb' has a line break in its name, which \.npy with \.paths\.txt cannot hold"),
        (".npy", "a\rb", r"'a\\rb' has a line break in its name"),
        (".parquet", UNDECODABLE, r"'caf\\udce9\.jpg' is not UTF-8, which \.parquet cannot hold: use \.npz"),
    ],
)
def test_a_name_that_a_format_cannot_hold_is_refused(tmp_path, ending, name, message):
    for refuse in (check_target, lambda path, names: write(path, names, rows(2), MADE_BY)):
        with pytest.raises(InputError, match=message):
            refuse(tmp_path / f"v{ending}", ["fine", name])
    assert list(tmp_path.iterdir()) == []


def test_parquet_holds_no_grids(tmp_path):
    with pytest.raises(InputError, match=r"one vector per row: use \.npz for token grids"):
        write(tmp_path / "v.parquet", ["a"], np.zeros((1, 2, 2, 3), np.float32), MADE_BY)


# --- failures half-way


SAVERS = {
    ".npz": "numpy.savez",
    ".npy": "numpy.save",
    ".safetensors": "pathlib.Path.write_bytes",
    ".jsonl": "mlx_aimv2.vectors.json_line",
    ".parquet": "pyarrow.parquet.write_table",
}


@every_format
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_failure_leaves_what_was_there_before(tmp_path, monkeypatch, ending, error):
    path = tmp_path / f"v{ending}"
    write(path, ["old"], rows(1), MADE_BY)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(SAVERS[ending], fail)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(
        expected, match="cannot be written: No space left" if expected is OutputError else None
    ):
        write(path, NAMES, rows(), MADE_BY)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


# --- shards


def filled(
    folder: Path, names: list[str], rows_in_shard: int = 2, fingerprint: dict = MADE_BY
) -> ShardFolder:
    shards = ShardFolder(folder, fingerprint, rows=rows_in_shard)
    for name in names:
        shards.add(name, np.full(3, len(name), np.float32))
    shards.close()
    return shards


def content(folder: Path) -> list[str]:
    """All names in the shards that the manifest lists, in order."""
    manifest = json.loads((folder / MANIFEST).read_text())
    return [name for shard in manifest["shards"] for name in read_npz(folder / shard["file"])[0]]


def test_vectors_are_spread_over_shards_and_the_last_may_be_smaller(tmp_path):
    filled(tmp_path / "out", ["a", "bb", "ccc", "dddd", "eeeee"])
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["embeddings-00000.npz", "embeddings-00001.npz", "embeddings-00002.npz", MANIFEST]
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["fingerprint"] == MADE_BY
    assert [shard["rows"] for shard in manifest["shards"]] == [2, 2, 1]
    names, vectors, note = read_npz(tmp_path / "out" / "embeddings-00001.npz")
    assert names == ["ccc", "dddd"] and vectors[:, 0].tolist() == [3, 4] and note == MADE_BY


def test_a_full_shard_is_on_disk_before_the_next_vector(tmp_path):
    shards = ShardFolder(tmp_path, MADE_BY, rows=2)
    for name in "abc":
        shards.add(name, np.zeros(3, np.float32))
    assert ShardFolder(tmp_path, MADE_BY).done() == {"a", "b"}


def test_closing_twice_or_without_vectors_writes_nothing_more(tmp_path):
    shards = filled(tmp_path / "out", ["a"])
    shards.close()
    assert len(list((tmp_path / "out").iterdir())) == 2
    ShardFolder(tmp_path / "other", MADE_BY).close()
    assert list((tmp_path / "other").iterdir()) == []


def test_a_second_run_continues_the_first(tmp_path):
    filled(tmp_path, ["a", "b", "c"])
    shards = ShardFolder(tmp_path, dict(MADE_BY), rows=2)
    assert shards.done() == {"a", "b", "c"}
    shards.add("d", np.zeros(3, np.float32))
    shards.close()
    assert content(tmp_path) == ["a", "b", "c", "d"]


def test_a_run_that_died_between_shard_and_manifest_does_that_shard_again(tmp_path):
    filled(tmp_path, ["a", "b"])
    write(tmp_path / "embeddings-00001.npz", ["c", "d"], rows(2), MADE_BY)  # and no line in the manifest
    shards = ShardFolder(tmp_path, MADE_BY, rows=2)
    assert shards.done() == {"a", "b"}
    for name in "cd":
        shards.add(name, np.zeros(3, np.float32))
    assert content(tmp_path) == ["a", "b", "c", "d"]


def test_a_run_that_died_before_its_first_manifest_starts_again(tmp_path):
    write(tmp_path / "embeddings-00000.npz", ["a"], rows(1), MADE_BY)
    (tmp_path / ".manifest.json.1-abcdef.partial").touch()
    assert ShardFolder(tmp_path, MADE_BY).done() == set()
    filled(tmp_path, ["a", "b"])
    assert content(tmp_path) == ["a", "b"]


def test_a_failed_manifest_can_be_tried_again(tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    shards = ShardFolder(tmp_path, MADE_BY, rows=10)
    shards.add("a", np.zeros(3, np.float32))
    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_text", fail)
        with pytest.raises(OutputError, match=r"manifest\.json cannot be written: No space left"):
            shards.close()
    shards.close()
    assert content(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"checkpoint": "ffff"}, "of tiny 0123abcd mean normalized, not of tiny ffff mean normalized"),
        ({"pooling": "max"}, "of tiny 0123abcd mean normalized, not of tiny 0123abcd max normalized"),
        ({"normalized": False}, "of tiny 0123abcd mean normalized, not of tiny 0123abcd mean not normalized"),
    ],
)
def test_vectors_of_another_model_are_not_mixed_in(tmp_path, other, words):
    filled(tmp_path, ["a"])
    with pytest.raises(InputError, match=f"holds vectors {words}: .*cannot be mixed; name a new folder"):
        ShardFolder(tmp_path, MADE_BY | other)


@pytest.mark.parametrize("other", [{"name": "elsewhere"}, {"revision": "abc"}, {"layout": "timm"}])
def test_where_the_same_checkpoint_lay_does_not_matter(tmp_path, other):
    filled(tmp_path, ["a"])
    assert ShardFolder(tmp_path, MADE_BY | other).done() == {"a"}


def test_a_shard_is_full_at_so_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("mlx_aimv2.shard_folder.SHARD_BYTES", 3 * 4 * 8)
    shards = ShardFolder(tmp_path, MADE_BY)
    for name in "abcdefg":
        shards.add(name, np.zeros(8, dtype=np.float32))
    assert [shard["rows"] for shard in shards.shards] == [3, 3]


def test_every_vector_needs_its_name(tmp_path):
    with pytest.raises(InputError, match="2 names for 3 vectors"):
        write(tmp_path / "v.npz", ["a", "b"], np.zeros((3, 4), dtype=np.float32), MADE_BY)


@pytest.mark.parametrize("name", ["holiday.jpg", "subfolder"])
def test_a_folder_of_other_files_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"holds other files \({name}\): name a new folder"):
        ShardFolder(tmp_path, MADE_BY)


def test_hidden_files_do_not_matter(tmp_path):
    (tmp_path / ".DS_Store").touch()
    assert ShardFolder(tmp_path, MADE_BY).done() == set()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"fingerprint": {}}',
        '{"fingerprint": "tiny", "shards": []}',
        '{"fingerprint": {}, "shards": 3}',
        '{"fingerprint": {}, "shards": "abc"}',
        '{"fingerprint": {}, "shards": [{"file": "a.npz"}]}',
        '{"fingerprint": {}, "shards": [{"file": "a.npz", "rows": "many"}]}',
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json is not a manifest of embeddings"):
        ShardFolder(tmp_path, {})


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", b"something else", None, "npy"], ids=repr)
def test_a_shard_that_is_gone_or_damaged_is_named(tmp_path, damage):
    filled(tmp_path, ["a", "b"])
    shard = tmp_path / "embeddings-00000.npz"
    shard.unlink()
    if damage == "npy":
        with shard.open("wb") as file:
            np.save(file, rows())
    elif damage is not None:
        shard.write_bytes(damage)
    with pytest.raises(InputError, match=r"embeddings-00000\.npz is in the manifest and cannot be read"):
        ShardFolder(tmp_path, MADE_BY).done()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/out cannot be made: Not a directory"):
        ShardFolder(tmp_path / "file" / "out", MADE_BY)


def test_grids_of_two_sizes_do_not_fit_one_shard(tmp_path):
    shards = ShardFolder(tmp_path, MADE_BY)
    shards.add("a.jpg", np.zeros((2, 3, 4), np.float32))
    with pytest.raises(InputError, match=r"b\.jpg has a token grid of \(3, 3\) and others of \(2, 3\)"):
        shards.add("b.jpg", np.zeros((3, 3, 4), np.float32))
    shards.close()
    assert content(tmp_path) == ["a.jpg"]


def test_a_fingerprint_in_words_leaves_out_what_is_not_known():
    assert describe({"name": "tiny", "revision": None, "dtype": "float16"}) == "tiny float16"


def test_an_ending_may_be_in_capitals(tmp_path):
    check_target(tmp_path / "v.NPZ")
    write(tmp_path / "v.NPZ", NAMES, rows(), MADE_BY)
    with np.load(tmp_path / "v.NPZ") as data:
        assert data["paths"].tolist() == NAMES


def test_lines_have_their_fingerprint_beside_them(tmp_path):
    write(tmp_path / "v.jsonl", NAMES, rows(), MADE_BY)
    assert json.loads((tmp_path / "v.fingerprint.json").read_text()) == MADE_BY


LOCKER = """
import sys, pathlib
from mlx_aimv2.shard_folder import lock_folder
lock_folder(pathlib.Path(sys.argv[1]))
"""


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    import subprocess
    import sys

    wait = LOCKER + "print('locked', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", wait, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(
            OutputError, match=r"another run is writing to .*: wait for it, or name another folder"
        ):
            lock_folder(tmp_path)
    assert subprocess.run([sys.executable, "-c", LOCKER, tmp_path]).returncode == 0


def test_shards_without_a_manifest_are_refused(tmp_path):
    for number in (0, 1):
        write(tmp_path / f"embeddings-0000{number}.npz", ["a"], rows(1), MADE_BY)
    with pytest.raises(InputError, match=r"holds other files \(embeddings-00001\.npz\): name a new folder"):
        ShardFolder(tmp_path, MADE_BY)


def test_a_manifest_that_leads_elsewhere_is_refused(tmp_path):
    shards = [{"file": "../v.npz", "rows": 1}]
    (tmp_path / "manifest.json").write_text(json.dumps({"fingerprint": MADE_BY, "shards": shards}))
    with pytest.raises(InputError, match=r"is not a manifest of embeddings: it names '\.\./v\.npz'"):
        ShardFolder(tmp_path, MADE_BY)


def test_a_shard_is_written_after_some_minutes(tmp_path, monkeypatch):
    shards = ShardFolder(tmp_path, MADE_BY)
    shards.add("a", np.zeros(4, np.float32))
    assert shards.shards == []
    monkeypatch.setattr("mlx_aimv2.shard_folder.SHARD_S", 0)
    shards.add("b", np.zeros(4, np.float32))
    assert [shard["rows"] for shard in shards.shards] == [2]
