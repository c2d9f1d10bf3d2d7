"""Adapter folders: read once, their base, and the check of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlx.utils import tree_flatten

from mlx_aimv2 import load
from mlx_aimv2.adapters import stored_adapter, task
from mlx_aimv2.adapters.adapter_folder import AdapterFolder
from mlx_aimv2.adapters.store import write_tensors
from mlx_aimv2.adapters.task import SWAP, Task, write_task
from mlx_aimv2.adapters.weights import HEAD, TRAINED, TRUNK
from mlx_aimv2.errors import ConfigError, NotACheckpointError
from mlx_aimv2.models.classifier_heads import make_head
from mlx_aimv2.storage.json_files import read_json


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
