"""A folder of shards: when a shard is written, what a run continues and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.shard_folders import MADE_BY, content, done, filled, opened, read_file, rows

from mlx_aimv2.errors import InputError, OutputError
from mlx_aimv2.vectors.files import write
from mlx_aimv2.vectors.manifest import MANIFEST
from mlx_aimv2.vectors.shard_folder import ShardFolder


def test_vectors_are_spread_over_shards_and_the_last_may_be_smaller(tmp_path):
    filled(tmp_path / "out", ["a", "bb", "ccc", "dddd", "eeeee"])
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == [
        "embeddings-00000.safetensors",
        "embeddings-00001.safetensors",
        "embeddings-00002.safetensors",
        MANIFEST,
    ]
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert manifest["fingerprint"] == MADE_BY
    assert [shard["rows"] for shard in manifest["shards"]] == [2, 2, 1]
    names, vectors, note = read_file(tmp_path / "out" / "embeddings-00001.safetensors")
    assert names == ["ccc", "dddd"] and vectors[:, 0].tolist() == [3, 4] and note == MADE_BY


def test_a_full_shard_is_written_without_waiting_for_the_next_one(tmp_path):
    shards = opened(tmp_path, MADE_BY, 2)
    for name in "abc":
        shards.add(name, np.zeros(3, np.float32))
    shards.settle()
    assert done(ShardFolder(tmp_path, MADE_BY)) == {"a", "b"}


def test_closing_twice_or_without_vectors_writes_nothing_more(tmp_path):
    shards = filled(tmp_path / "out", ["a"])
    shards.close()
    assert len(list((tmp_path / "out").iterdir())) == 2
    ShardFolder(tmp_path / "other", MADE_BY).close()
    assert list((tmp_path / "other").iterdir()) == []


def test_a_second_run_continues_the_first(tmp_path):
    filled(tmp_path, ["a", "b", "c"])
    shards = opened(tmp_path, dict(MADE_BY))
    assert done(shards) == {"a", "b", "c"}
    shards.add("d", np.zeros(3, np.float32))
    shards.close()
    assert content(tmp_path) == ["a", "b", "c", "d"]


def test_what_a_run_wrote_that_died_before_the_manifest_is_taken_up(tmp_path):
    filled(tmp_path, ["a", "b"])
    write(
        tmp_path / "embeddings-00001.safetensors", ["c", "d"], rows(2), MADE_BY
    )  # and no line in the manifest
    shards = opened(tmp_path, MADE_BY, 2)
    assert done(shards) == {"a", "b", "c", "d"}
    shards.add("e", np.zeros(5, np.float32))
    shards.close()
    assert content(tmp_path) == ["a", "b", "c", "d", "e"]


def test_the_manifest_is_there_before_the_first_shard(tmp_path, faults):
    with faults.watch() as steps:
        filled(tmp_path / "out", ["a", "b", "c"])
    names = [path.name.split(".")[1] for step, path in steps if step == "replace"]
    assert names == ["manifest", "embeddings-00000", "manifest", "embeddings-00001", "manifest"]


def test_a_failed_manifest_can_be_tried_again(tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    shards = opened(tmp_path, MADE_BY, 10)
    shards.add("a", np.zeros(3, np.float32))
    with monkeypatch.context() as broken:
        broken.setattr(Path, "write_text", fail)
        with pytest.raises(OutputError, match=r"manifest\.json cannot be written: No space left"):
            shards.close()
    shards.close()
    assert content(tmp_path) == ["a"]


def test_a_shard_is_full_at_so_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("mlx_aimv2.vectors.shard_folder.SHARD_BYTES", 3 * 4 * 8)
    shards = ShardFolder(tmp_path, MADE_BY)
    for name in "abcdefg":
        shards.add(name, np.zeros(8, dtype=np.float32))
    assert counts(shards) == [3, 3]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file/out cannot be written: Not a directory"):
        ShardFolder(tmp_path / "file" / "out", MADE_BY)


def test_grids_of_two_sizes_do_not_fit_one_shard(tmp_path):
    shards = ShardFolder(tmp_path, MADE_BY)
    shards.add("a.jpg", np.zeros((2, 3, 4), np.float32))
    with pytest.raises(InputError, match=r"b\.jpg has a token grid of \(3, 3\) and others of \(2, 3\)"):
        shards.add("b.jpg", np.zeros((3, 3, 4), np.float32))
    shards.close()
    assert content(tmp_path) == ["a.jpg"]


LOCKER = """
import sys, pathlib
from mlx_aimv2.errors import OutputError
from mlx_aimv2.storage.locks import lock_folder
lock = lock_folder(pathlib.Path(sys.argv[1]), OutputError("locked"))
print("locked", flush=True)
sys.stdin.read()
"""


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    import subprocess
    import sys

    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(
            OutputError, match=r"another run is writing to .*: wait for it, or name another folder"
        ):
            ShardFolder.locked(tmp_path, MADE_BY)
    ShardFolder.locked(tmp_path, MADE_BY).release()


def counts(shards: ShardFolder) -> list[int]:
    """The rows of each shard that is written, or is being written now."""
    shards.settle()
    return [entry.rows for entry in shards.shards.values()]


@pytest.fixture
def clock(monkeypatch):
    """Says how late it is, in seconds."""
    now = [1000.0]
    monkeypatch.setattr("mlx_aimv2.vectors.shard_folder.time.monotonic", lambda: now[0])
    return now


def test_a_shard_is_written_after_some_minutes(tmp_path, clock):
    shards = ShardFolder(tmp_path, MADE_BY)
    for name, now, written in (("a", 1299, []), ("b", 1300, [2]), ("c", 1599, [2]), ("d", 1600, [2, 2])):
        clock[0] = now
        shards.add(name, np.zeros(4, np.float32))
        assert counts(shards) == written, name


def test_the_clock_begins_anew_with_every_shard_whatever_filled_it(tmp_path, clock):
    shards = opened(tmp_path, MADE_BY, 2)
    for name, now, written in (("a", 1200, []), ("b", 1299, [2]), ("c", 1598, [2]), ("d", 1599, [2, 2])):
        clock[0] = now
        shards.add(name, np.zeros(4, np.float32))
        assert counts(shards) == written, name


def test_a_folder_may_have_a_clock_of_its_own(tmp_path, clock):
    shards = ShardFolder(tmp_path, MADE_BY)
    shards.full_s = 30
    clock[0] += 30
    shards.add("a", np.zeros(4, np.float32))
    assert counts(shards) == [1]


@pytest.mark.parametrize(("count", "expected"), [(2, [3]), (3, [3]), (4, [3, 1]), (6, [3, 3])])
def test_a_shard_is_full_at_exactly_so_many_rows(tmp_path, count, expected):
    shards = opened(tmp_path, MADE_BY, 3)
    for name in "abcdef"[:count]:
        shards.add(name, np.zeros(4, np.float32))
    assert counts(shards) == [3] * (count // 3)
    shards.close()
    assert counts(shards) == ([2] if count == 2 else expected)
