"""An adapter folder put on a loaded model: an adapter or a whole encoder, a trained head, or both."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ..checkpoints.origin import Origin
from ..errors import ConfigError, NotACheckpointError
from ..models.classifier import MULTI_LABEL, SINGLE_LABEL, Classifier
from ..models.lit import Aimv2Model
from ..models.vision import Aimv2VisionModel
from .attach import settle
from .base import require_base
from .store import CONFIG, apply_adapter, has_adapter, read_stored
from .task import TASK, Task, check_base, has_task, read_head, read_task
from .trunk import TRUNK, has_trunk, load_trunk, trunk_hash


def adapter_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of an adapter, a trained head, or both.

    Raises:
        NotACheckpointError: no such folder, or neither is in it.
        ConfigError: it holds an adapter and a whole encoder.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise NotACheckpointError(f"{folder}: there is no such folder: name the one that holds the adapter")
    if not has_adapter(folder) and not has_task(folder):
        raise NotACheckpointError(f"{folder} holds neither an adapter ({CONFIG}) nor a trained head ({TASK})")
    if has_adapter(folder) and has_trunk(folder):
        raise ConfigError(
            f"{folder} holds {CONFIG} and {TRUNK}: two trainings, remove what is of the older one"
        )
    return folder


def check_folder(folder: Path, origin: Origin, any_base: bool = False) -> Task | None:
    """Read what can be read of an adapter folder before the base is loaded.

    Returns:
        What its head was trained for; None where it holds an adapter alone.

    Raises:
        InputError: it was trained on another base.
        CheckpointError: a file is missing, damaged or not what this package reads.
    """
    task = read_task(folder) if has_task(folder) else None
    if task is not None:
        check_base(task, origin, any_base)
    if has_adapter(folder):
        stored = read_stored(folder)
        require_base(str(folder), stored.config.base_name, stored.base, origin, any_base)
    return task


def restore(
    model: Aimv2Model | Aimv2VisionModel, folder: Path, any_base: bool = False
) -> Aimv2Model | Aimv2VisionModel | Classifier:
    """The model with what a folder holds: as a `Classifier`, with its labels, where there is a trained head.

    Raises:
        InputError: the folder's contents were trained on another base.
        CheckpointError: a file is missing, damaged, or does not fit the model.
    """
    origin: Origin | None = getattr(model, "origin", None)
    task = read_task(folder) if has_task(folder) else None
    if task is not None:
        check_base(task, origin, any_base)
    put_on(model, folder, any_base)
    settle(model)
    return model if task is None else _classifier(model, folder, task)


def put_on(model: Aimv2Model | Aimv2VisionModel, folder: Path, any_base: bool = False) -> None:
    """Put the adapter of a folder into a model, or the whole encoder in place of the model's; or nothing.

    Raises:
        InputError: the adapter was trained on another base.
        CheckpointError: a file is damaged, or does not fit the model.
    """
    if has_adapter(folder):
        apply_adapter(model, folder, any_base)
    if has_trunk(folder):
        load_trunk(folder, trunk_of(model))
        if (origin := getattr(model, "origin", None)) is not None:
            model.origin = dataclasses.replace(origin, adapter=trunk_hash(folder))


def trunk_of(model: Aimv2Model | Aimv2VisionModel) -> Aimv2VisionModel:
    """The image encoder of a pair; an image encoder itself."""
    return model.vision_model if isinstance(model, Aimv2Model) else model


def _classifier(model: Aimv2Model | Aimv2VisionModel, folder: Path, task: Task) -> Classifier:
    trunk = trunk_of(model)
    classifier = Classifier(trunk, read_head(folder, task, trunk.config.hidden_size), task.pooling)
    classifier.labels = task.labels
    classifier.task = MULTI_LABEL if task.multi_label else SINGLE_LABEL
    classifier.origin = getattr(model, "origin", None)
    classifier.eval()
    return classifier
