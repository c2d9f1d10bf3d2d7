"""Manifests and shards: what is read, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.shard_folders import MADE_BY, done, filled, rows

from mlx_aimv2.errors import InputError
from mlx_aimv2.vectors.files import write
from mlx_aimv2.vectors.shard_folder import ShardFolder
from mlx_aimv2.vectors.shards import MANIFEST


@pytest.mark.parametrize("damage", ["cut off", "another model"])
def test_a_shard_that_does_not_belong_there_is_refused_and_stays(tmp_path, damage):
    filled(tmp_path, ["a", "b"])
    stranger = tmp_path / "embeddings-00001.npz"
    write(stranger, ["c"], rows(1), {**MADE_BY, "pooling": "max"})
    if damage == "cut off":
        stranger.write_bytes(stranger.read_bytes()[:50])
    before = stranger.read_bytes()
    with pytest.raises(
        InputError, match=r"embeddings-00001\.npz is not in the manifest and cannot be used: move it away"
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
            np.save(file, rows(2))
    elif damage is not None:
        shard.write_bytes(damage)
    with pytest.raises(
        InputError,
        match=r"00000\.npz is in the manifest and cannot be used: move it away \(.*cannot be read",
    ):
        ShardFolder(tmp_path, MADE_BY)


@pytest.mark.parametrize("count", [1, 2])
def test_shards_without_a_manifest_are_refused_and_stay(tmp_path, count):
    for number in range(count):
        write(tmp_path / f"embeddings-0000{number}.npz", ["a"], rows(1), MADE_BY)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    message = (
        r"holds shards \(embeddings-00000\.npz\) and no manifest\.json: put it back, or replace .* --force"
    )
    with pytest.raises(InputError, match=message):
        ShardFolder(tmp_path, MADE_BY)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_manifest_that_leads_elsewhere_is_refused(tmp_path):
    shards = [{"file": "../v.npz", "rows": 1}]
    (tmp_path / "manifest.json").write_text(json.dumps({"fingerprint": MADE_BY, "shards": shards}))
    with pytest.raises(InputError, match=r"is not a manifest of embeddings: it names '\.\./v\.npz'"):
        ShardFolder(tmp_path, MADE_BY)
