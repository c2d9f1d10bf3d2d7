"""The checkpoint that an adapter folder names as its base."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.bundled import is_demo
from ..errors import Advice, InputError
from ..presets import find
from ..storage.json_files import read_json
from .adapter_folder import adapter_folder
from .base_check import REPOSITORY
from .pair_task import read_any_task
from .stored_adapter import CONFIG
from .task import TASK

UNNAMED = "unnamed"  # a model that was not loaded from anywhere
CHECKPOINT = ("config.json", "model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True)
class NamedBase:
    """A checkpoint as `load` takes it.

    Attributes:
        model: a folder, or a repository.
        revision: its commit; None for a folder, or where none was written down.
    """

    model: str
    revision: str | None = None


def named_base(adapter_path: str | os.PathLike[str]) -> NamedBase | None:
    """The checkpoint that an adapter, a trained head or a trained pair was trained on, as its files name it.

    Of a fused checkpoint with its head beside it, that is the folder itself. A relative path begins in the working
    directory, or else beside the adapter.

    Returns:
        None where the files name none.

    Raises:
        NotACheckpointError: the folder is not there, or holds no adapter.
        ConfigError: a file is damaged.
        InputError: the base is a folder that is not there.
    """
    folder = adapter_folder(adapter_path)
    if (folder / CHECKPOINT[0]).is_file() and any((folder / name).is_file() for name in CHECKPOINT[1:]):
        return NamedBase(str(folder))
    name, revision = _written(folder)
    if not name or name == UNNAMED:
        return None
    for path in (Path(name).expanduser(), folder.absolute().parent / name):
        if path.is_dir():
            return NamedBase(str(path))
    is_repository = REPOSITORY.fullmatch(name) is not None and not name.startswith(".")
    if is_demo(name) or find(name) is not None or is_repository:
        return NamedBase(name, revision)
    advice = Advice("name its place with {}", "model", otherwise="name its place")
    raise InputError(f"{folder} was trained on {name}, which is not there", advice)


def _written(folder: Path) -> tuple[str | None, str | None]:
    """The name and the revision of the base in a folder's files."""
    if (folder / TASK).is_file():
        base = read_any_task(folder).base
        return base.name, base.revision
    data = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    name, revision = data.get("base_model_name_or_path"), data.get("revision")
    return str(name) if name else None, str(revision) if revision else None
