"""Adapter folders: read once, their base, and the check of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.adapter_files import change
from mlx.utils import tree_flatten

from mlx_aimv2 import load
from mlx_aimv2.adapters import stored_adapter, task
from mlx_aimv2.adapters.adapter_folder import AdapterFolder
from mlx_aimv2.adapters.base_check import NamedBase
from mlx_aimv2.adapters.store import write_tensors
from mlx_aimv2.adapters.task import SWAP, Task, write_task
from mlx_aimv2.adapters.weights import HEAD, TRAINED, TRUNK
from mlx_aimv2.checkpoints.identity import Origin
from mlx_aimv2.errors import ConfigError, InputError, NotACheckpointError
from mlx_aimv2.models.classifier_heads import make_head
from mlx_aimv2.storage.json_files import read_json


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


def test_no_adapter(tmp_path):
    with pytest.raises(NotACheckpointError, match="holds neither an adapter"):
        AdapterFolder.read(tmp_path).base()
    with pytest.raises(NotACheckpointError, match="there is no such folder"):
        AdapterFolder.read(tmp_path / "missing").base()


def test_a_training_that_was_cut_short_is_refused(adapter, tmp_path):
    (adapter / TRAINED).touch()
    with pytest.raises(NotACheckpointError, match=r"adapter lacks task\.json: .* was cut short: resume it"):
        AdapterFolder.read(adapter)
    (tmp_path / "best" / SWAP).mkdir(parents=True)
    with pytest.raises(
        NotACheckpointError, match=r"best lacks task\.json: .* kept its best epoch: resume it"
    ):
        AdapterFolder.read(tmp_path / "best")


def test_weights_of_two_trainings_are_refused(adapter):
    (adapter / TRUNK).touch()
    with pytest.raises(
        ConfigError, match=r"holds adapter_config\.json and trunk\.safetensors: two trainings"
    ):
        AdapterFolder.read(adapter)


def test_a_folder_is_read_once_in_a_load(adapter, tiny_vision, monkeypatch):
    model, _ = load(tiny_vision)
    head = make_head({"kind": "linear"}, 64, 2)
    write_tensors(adapter / HEAD, dict(tree_flatten(head.parameters())), {"format": "mlx"})
    write_task(adapter, Task(labels=("a", "b"), base=model.origin, method="lora"))
    files = []
    for module in (task, stored_adapter):
        monkeypatch.setattr(module, "read_json", lambda path: files.append(path.name) or read_json(path))
    folder = AdapterFolder.read(adapter)
    classifier, _ = load(folder.base().model, adapter_path=folder)
    assert classifier.labels == ("a", "b") and files == ["task.json", "adapter_config.json"]
    load(tiny_vision, adapter_path=adapter)
    assert files == 2 * ["task.json", "adapter_config.json"]
    assert AdapterFolder.read(folder) is folder and Path(folder) == adapter


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
