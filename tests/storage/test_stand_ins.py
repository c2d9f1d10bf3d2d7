"""Git LFS pointers, git-annex pointers and saved web pages in place of every file of a checkpoint."""

from __future__ import annotations

import codecs
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import convert, load, read_vectors
from mlx_aimv2.errors import (
    Aimv2Error,
    BrokenImageError,
    CheckpointError,
    ConfigError,
    DamagedFileError,
    InputError,
)
from mlx_aimv2.processing.decode import decode_image
from mlx_aimv2.storage.stand_ins import LOOK, check_stand_in, stand_in

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d7a" * 16 + "\nsize 1236791296\n"
PAGE = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"
LFS = "a Git LFS pointer: run `git lfs pull` in its folder"
WEB = "a web page: download the file again"


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (POINTER, LFS),
        (POINTER.replace("\n", "\r\n"), LFS),
        (POINTER.replace("https://git-lfs.github.com/spec/v1", "https://hawser.github.com/spec/v1"), LFS),
        (POINTER.replace("https://git-lfs.github.com/spec/v1", "http://git-media.io/v/2"), LFS),
        (
            "/annex/objects/SHA256E-s12--abc.safetensors\n",
            "a git-annex pointer: run `git annex get` in its folder",
        ),
        ("../../.git/annex/objects/x/y/z", "a git-annex pointer: run `git annex get` in its folder"),
        (PAGE, WEB),
        ("\n  <HTML lang='de'>", WEB),
        ("<?xml version='1.0'?>\n<!DOCTYPE html PUBLIC '-//W3C//DTD XHTML'>", WEB),
        ("<!-- saved from url=(0014)about:internet -->\n<html>", WEB),
        ("<head><title>302 Found</title></head>", WEB),
        (
            "<?xml version='1.0'?><Error><Code>AccessDenied</Code>",
            "the error message of a web server: download the",
        ),
        ("Entry not found", "the error message of a web server: download the file again"),
    ],
)
def test_what_stands_in_for_a_file(start, what):
    for data in (
        start.encode(),
        codecs.BOM_UTF8 + start.encode(),
        codecs.BOM_UTF16_LE + start.encode("utf-16-le"),
    ):
        assert (stand_in(data[:LOOK]) or "").startswith(what)


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"{}",
        b"\xff\xd8\xff\xe0",
        b"version,label\n1,cat",
        b"version https://example.org/spec/v1\n",
        b"<?xml version='1.0'?><svg>",
        b"path,label\n/annex/objects/x.jpg,cat\n",
        b"header.jpg,a\n",
        b"<p align=center>a card</p>",
        b"Entry not found in the album\n",
    ],
)
def test_other_files_are_what_they_are(start):
    assert stand_in(start) is None


def test_what_is_no_file_is_left_to_its_reader(tmp_path):
    check_stand_in(tmp_path / "nothing")
    check_stand_in(tmp_path)
    (tmp_path / "x").write_text(PAGE)
    with pytest.raises(ConfigError, match=f"x is {WEB}"):
        check_stand_in(tmp_path / "x", ConfigError)


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


@pytest.mark.parametrize(("content", "what"), [(POINTER, LFS), (PAGE, WEB)], ids=["pointer", "page"])
@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "model.safetensors", "vocab.json", "merges.txt"]
)
def test_every_file_of_a_checkpoint(tiny_pair, tmp_path, name, content, what):
    folder = copied(tiny_pair, tmp_path / "pair")
    (folder / name).write_text(content)
    with pytest.raises(Aimv2Error, match=f"{name} is {what}"):
        load(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_every_file_of_a_tokenizer(tiny_pair, tmp_path, name):
    folder = copied(tiny_pair, tmp_path / "pair")
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    (folder / name).write_text(POINTER)
    with pytest.raises(Aimv2Error, match=f"{name} is {LFS}"):
        load(folder)


@pytest.mark.parametrize("name", ["mlx_model.safetensors", "model.npz", "flax_model.msgpack"])
def test_every_format_of_weights(tiny_vision, tmp_path, name):
    folder = copied(tiny_vision, tmp_path / "vision")
    (folder / name).write_text(POINTER)
    (folder / "model.safetensors").unlink()
    with pytest.raises(DamagedFileError, match=f"{name} is {LFS}"):
        load(folder)


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "model-00001-of-00001.safetensors"])
def test_an_index_and_its_shards(tiny_vision, tmp_path, name):
    folder = copied(tiny_vision, tmp_path / "vision")
    shard = "model-00001-of-00001.safetensors"
    (folder / "model.safetensors").rename(folder / shard)
    (folder / "model.safetensors.index.json").write_text(f'{{"weight_map": {{"a": "{shard}"}}}}')
    (folder / name).write_text(POINTER)
    with pytest.raises(CheckpointError, match=f"{name} is {LFS}"):
        load(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_every_file_of_an_adapter(tiny_vision, with_adapter, tmp_path, name):
    with_adapter(tiny_vision, tmp_path / "adapter")
    (tmp_path / "adapter" / name).write_text(POINTER)
    with pytest.raises(CheckpointError, match=f"{name} is {LFS}"):
        load(tiny_vision, adapter_path=tmp_path / "adapter")


@pytest.mark.parametrize("name", ["task.json", "head.safetensors"])
def test_every_file_of_a_trained_head(tiny_vision, tmp_path, name):
    from mlx_aimv2.adapters.task import Task, write_task
    from mlx_aimv2.models.classifier_heads import make_head

    folder = tmp_path / "head"
    folder.mkdir()
    model, _ = load(tiny_vision)
    write_task(folder, Task(labels=("a", "b"), base=model.origin, method="linear"))
    head = dict(tree_flatten(make_head({"kind": "linear"}, 64, 2).parameters()))
    mx.save_safetensors(str(folder / "head.safetensors"), head)
    load(tiny_vision, adapter_path=folder)
    (folder / name).write_text(POINTER)
    with pytest.raises(CheckpointError, match=f"{name} is {LFS}"):
        load(tiny_vision, adapter_path=folder)


@pytest.mark.parametrize("name", ["merges.txt", "LICENSE", "README.md"])
def test_a_file_that_a_conversion_only_copies(tiny_vision, tmp_path, name):
    folder = copied(tiny_vision, tmp_path / "vision")
    (folder / name).write_text(POINTER)
    with pytest.raises(DamagedFileError, match=f"{name} is {LFS}"):
        convert(folder, tmp_path / "converted")
    assert not (tmp_path / "converted").exists()


@pytest.mark.parametrize(("content", "what"), [(POINTER, LFS), (PAGE, WEB)], ids=["pointer", "page"])
def test_an_image(tmp_path, content, what):
    (tmp_path / "x.jpg").write_text(content)
    with pytest.raises(BrokenImageError, match=f"x.jpg: not an image that can be read, but {what}"):
        decode_image(tmp_path / "x.jpg")


def test_a_licence_may_be_a_web_page(tiny_vision, tmp_path):
    folder = copied(tiny_vision, tmp_path / "vision")
    (folder / "LICENSE").write_text(PAGE)
    assert (convert(folder, tmp_path / "converted") / "LICENSE").read_text() == PAGE


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.safetensors", "x.jsonl", "x.parquet"])
def test_vectors(tmp_path, name):
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(InputError, match=f"{name} is {LFS}"):
        read_vectors(tmp_path / name)
