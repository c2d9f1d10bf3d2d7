"""The base of an adapter: found by its name, and refused where it is another."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from helpers.adapter_files import change, change_tensors

from mlx_aimv2 import load
from mlx_aimv2.adapters.adapter_folder import AdapterFolder
from mlx_aimv2.adapters.base_check import NamedBase
from mlx_aimv2.adapters.task import Task
from mlx_aimv2.checkpoints.identity import Origin
from mlx_aimv2.errors import InputError


def rename(folder, name, revision=None):
    """Let the files of an adapter name another base."""
    change(folder, base_model_name_or_path=name, revision=revision)
    return folder


def test_a_folder_that_is_there(adapter, tiny_vision):
    assert AdapterFolder.read(adapter).base() == NamedBase(str(tiny_vision))


@pytest.mark.parametrize("name", ["demo", "apple/aimv2-large-patch14-224", "lit"])
def test_what_the_hub_or_the_package_holds(adapter, name):
    commit = "ac764a25c832c7dc5e11871daa588e98e3cdbfb7"
    assert AdapterFolder.read(rename(adapter, name, commit)).base() == NamedBase(name, commit)
    assert AdapterFolder.read(rename(adapter, name)).base() == NamedBase(name)


@pytest.mark.parametrize("name", [None, "", "unnamed"])
def test_no_name(adapter, name):
    assert AdapterFolder.read(rename(adapter, name)).base() is None


def test_a_relative_path_begins_here_or_beside_the_adapter(adapter, tiny_vision, tmp_path, monkeypatch):
    rename(adapter, "base")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.copytree(tiny_vision, tmp_path / "base")
    assert AdapterFolder.read("../adapter").base() == NamedBase(str(tmp_path / "elsewhere" / ".." / "base"))
    shutil.copytree(tiny_vision, tmp_path / "elsewhere" / "base")
    assert AdapterFolder.read("../adapter").base() == NamedBase("base")


@pytest.mark.parametrize("name", ["/no/such/base", "no folder", "./base"])
def test_a_folder_that_is_gone(adapter, name):
    message = f"{adapter} was trained on {name}, which is not there: name its place with model"
    with pytest.raises(InputError) as refused:
        AdapterFolder.read(rename(adapter, name)).base()
    assert str(refused.value) == message


def test_another_base_is_refused_by_name():
    base = Origin("apple/aimv2-large-patch14-224", "0" * 40, "0123456789abcdef", "apple", "float32")
    folder = AdapterFolder(Path("a"), Task(labels=("x",), base=base, method="lora"), None, False)
    other = Origin("apple/aimv2-large-patch14-336", "1" * 40, "fedcba9876543210", "apple", "float32")
    message = (
        r"a was trained on apple/aimv2-large-patch14-224 \(checkpoint 0123456789abcdef\), and this is"
        r" apple/aimv2-large-patch14-336 \(checkpoint fedcba9876543210\)"
    )
    with pytest.raises(InputError, match=message):
        folder.check(other)
    folder.check(other, any_base=True)
    folder.check(replace(other, checkpoint=base.checkpoint))  # the same files from elsewhere
    folder.check(replace(base, dtype="float16"))
    folder.check(None)


def test_what_peft_wrote_is_held_against_the_repositorys_name(adapter, tiny_vision):
    change_tensors(adapter, lambda tensors: tensors)
    path = str(adapter / "adapter_model.safetensors")
    mx.save_safetensors(path, dict(mx.load(path)), metadata={"format": "pt"})
    change(adapter, base_model_name_or_path="apple/aimv2-large-patch14-336")
    model, _ = load(tiny_vision, adapter_path=adapter)  # a folder: nobody knows
    other = replace(model.origin, name="apple/aimv2-large-patch14-224", revision="0" * 40)
    message = (
        "was trained on apple/aimv2-large-patch14-336, and this is apple/aimv2-large-patch14-224: load that"
    )
    with pytest.raises(InputError, match=message):
        AdapterFolder.read(adapter).check(other)
    AdapterFolder.read(adapter).check(other, any_base=True)
