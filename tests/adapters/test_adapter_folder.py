"""The base that an adapter folder names: in every kind of folder, and where it is looked for."""

from __future__ import annotations

import json
import shutil

import pytest

from mlx_aimv2.adapters.named_base import NamedBase, named_base
from mlx_aimv2.errors import InputError, NotACheckpointError


def rename(folder, name, revision=None):
    """Let the files of an adapter name another base."""
    path = folder / "adapter_config.json"
    entry = json.loads(path.read_text()) | {"base_model_name_or_path": name, "revision": revision}
    path.write_text(json.dumps(entry))
    return folder


@pytest.fixture
def adapter(tiny_vision, with_adapter, tmp_path):
    with_adapter(tiny_vision, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_folder_that_is_there(adapter, tiny_vision):
    assert named_base(adapter) == NamedBase(str(tiny_vision))


@pytest.mark.parametrize("name", ["demo", "apple/aimv2-large-patch14-224", "lit"])
def test_what_the_hub_or_the_package_holds(adapter, name):
    commit = "ac764a25c832c7dc5e11871daa588e98e3cdbfb7"
    assert named_base(rename(adapter, name, commit)) == NamedBase(name, commit)
    assert named_base(rename(adapter, name)) == NamedBase(name)


@pytest.mark.parametrize("name", [None, "", "unnamed"])
def test_no_name(adapter, name):
    assert named_base(rename(adapter, name)) is None


def test_a_relative_path_begins_here_or_beside_the_adapter(adapter, tiny_vision, tmp_path, monkeypatch):
    rename(adapter, "base")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    shutil.copytree(tiny_vision, tmp_path / "base")
    assert named_base("../adapter") == NamedBase(str(tmp_path / "elsewhere" / ".." / "base"))
    shutil.copytree(tiny_vision, tmp_path / "elsewhere" / "base")
    assert named_base("../adapter") == NamedBase("base")


@pytest.mark.parametrize("name", ["/no/such/base", "no folder", "./base"])
def test_a_folder_that_is_gone(adapter, name):
    message = f"{adapter} was trained on {name}, which is not there: name its place with model"
    with pytest.raises(InputError) as refused:
        named_base(rename(adapter, name))
    assert str(refused.value) == message


def test_no_adapter(tmp_path):
    with pytest.raises(NotACheckpointError, match="holds neither an adapter"):
        named_base(tmp_path)
    with pytest.raises(NotACheckpointError, match="there is no such folder"):
        named_base(tmp_path / "missing")
