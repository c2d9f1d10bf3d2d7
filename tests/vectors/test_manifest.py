"""The manifest of a folder of shards: what it says, and what is refused."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from helpers.shard_folders import MADE_BY, content, done, filled, opened, rows

from mlx_aimv2.errors import InputError
from mlx_aimv2.vectors.files import write
from mlx_aimv2.vectors.manifest import MANIFEST
from mlx_aimv2.vectors.reading import read_vectors
from mlx_aimv2.vectors.shard_folder import ShardFolder


@pytest.mark.parametrize("damage", ["cut off", "another model"])
def test_a_shard_that_does_not_belong_there_is_refused_and_stays(tmp_path, damage):
    filled(tmp_path, ["a", "b"])
    stranger = tmp_path / "embeddings-00001.safetensors"
    write(stranger, ["c"], rows(1), {**MADE_BY, "pooling": "max"})
    if damage == "cut off":
        stranger.write_bytes(stranger.read_bytes()[:50])
    before = stranger.read_bytes()
    with pytest.raises(
        InputError,
        match=r"embeddings-00001\.safetensors is not in the manifest and cannot be used: move it away",
    ):
        ShardFolder(tmp_path, MADE_BY)
    assert stranger.read_bytes() == before


@pytest.mark.parametrize("name", ["holiday.jpg", "subfolder"])
def test_a_folder_of_other_files_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"holds other files \({name}\): name a new folder"):
        ShardFolder(tmp_path, MADE_BY)


def test_hidden_files_do_not_matter(tmp_path):
    (tmp_path / ".DS_Store").touch()
    assert done(ShardFolder(tmp_path, MADE_BY)) == set()


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
        '{"fingerprint": {}, "shards": [{"file": "embeddings-00000.npz", "rows": 1e999}]}',
    ],
)
def test_a_damaged_manifest_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json is not a manifest of embeddings"):
        ShardFolder(tmp_path, {})


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 cut off", b"something else", "another"], ids=repr)
def test_a_shard_that_is_damaged_is_named(tmp_path, damage):
    filled(tmp_path, ["a", "b"])
    shard = tmp_path / "embeddings-00000.safetensors"
    if damage == "another":
        write(shard, ["a", "b"], rows(2), MADE_BY)
    else:
        shard.write_bytes(damage)
    size = shard.stat().st_size
    with pytest.raises(
        InputError,
        match=r"00000\.safetensors is in the manifest and cannot be used: move it away, and its images are embedded"
        rf" again \(.*00000\.safetensors is damaged: it has {size} bytes instead of \d+\)",
    ):
        ShardFolder(tmp_path, MADE_BY)


def test_a_shard_of_other_bytes_is_named_when_it_is_read(tmp_path):
    filled(tmp_path, ["a", "b", "c"])
    shard = tmp_path / "embeddings-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(
        InputError, match=r"embeddings-00001\.safetensors is damaged: its checksum is not that in"
    ):
        read_vectors(tmp_path)


def test_a_shard_that_is_gone_is_named_and_embedded_again(tmp_path):
    filled(tmp_path, ["a", "b", "c"])
    (tmp_path / "embeddings-00000.safetensors").unlink()
    with pytest.raises(InputError, match=r"embeddings-00000\.safetensors is in the manifest and is gone"):
        read_vectors(tmp_path)
    shards = opened(tmp_path)
    assert shards.lost == 2 and done(shards) == {"c"}
    shards.close()
    assert content(tmp_path) == ["c"]


def test_the_manifest_says_how_many_rows_there_are_and_what_the_shards_are_like(tmp_path):
    filled(tmp_path, ["a", "b", "c"])
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["rows"] == 3 and manifest["fingerprint"] == MADE_BY
    assert manifest["options"] == {"texts": False, "shard_format": "safetensors"}
    for shard in manifest["shards"]:
        data = (tmp_path / shard["file"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_manifest_of_an_older_version_has_no_checksums(tmp_path):
    write(tmp_path / "embeddings-00000.npz", ["a", "b"], rows(2), MADE_BY)
    shards = [{"file": "embeddings-00000.npz", "rows": 2}]
    (tmp_path / MANIFEST).write_text(json.dumps({"fingerprint": MADE_BY, "shards": shards}))
    np.testing.assert_array_equal(read_vectors(tmp_path).embeddings, rows(2))
    shards = opened(tmp_path)
    shards.add("c", np.zeros(5, np.float32))
    shards.close()
    assert content(tmp_path) == ["a", "b", "c"] and (tmp_path / "embeddings-00001.npz").exists()


@pytest.mark.parametrize("count", [1, 2])
def test_shards_without_a_manifest_are_refused_and_stay(tmp_path, count):
    for number in range(count):
        write(tmp_path / f"embeddings-0000{number}.safetensors", ["a"], rows(1), MADE_BY)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    message = r"holds shards \(embeddings-00000\.safetensors\) and no manifest\.json: put it back, or .*force"
    with pytest.raises(InputError, match=message):
        ShardFolder(tmp_path, MADE_BY)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_manifest_that_leads_elsewhere_is_refused(tmp_path):
    shards = [{"file": "../v.npz", "rows": 1}]
    (tmp_path / "manifest.json").write_text(json.dumps({"fingerprint": MADE_BY, "shards": shards}))
    with pytest.raises(InputError, match=r"is not a manifest of embeddings: it names '\.\./v\.npz'"):
        ShardFolder(tmp_path, MADE_BY)
