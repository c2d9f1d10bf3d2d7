"""An adapter folder put on a loaded model: an adapter or a whole encoder, a trained head, or both."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ..checkpoints.identity import Origin
from ..errors import ConfigError, InputError, NotACheckpointError
from ..events import Notice, OnEvent, ignore
from ..models.classifier import MULTI_LABEL, SINGLE_LABEL, Classifier
from ..models.lit import Aimv2Model
from ..models.vision import Aimv2VisionModel
from .attach import settle
from .base_check import require_base
from .pair_task import TRAINED, AnyTask, has_trained, is_pair_task, load_trained, read_any_task, trained_hash
from .store import apply_adapter
from .stored_adapter import CONFIG, has_adapter, read_stored
from .task import SWAP, TASK, Task, check_base, has_task, read_head
from .weights import TRUNK, has_trunk, load_trunk, trunk_hash


def adapter_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of an adapter, a trained head, or both.

    Raises:
        NotACheckpointError: no such folder, neither is in it, or not all that belongs to it.
        ConfigError: it holds an adapter and a whole encoder.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        what = "is no folder" if os.path.lexists(folder) else "there is no such folder"
        raise NotACheckpointError(f"{folder}: {what}: name the one that holds the adapter")
    if (folder / SWAP).is_dir() and not (folder / TASK).exists():
        raise NotACheckpointError(
            f"{folder} lacks {TASK}: the training that wrote it was cut short while it kept its best epoch: resume it"
        )
    if not has_adapter(folder) and not has_task(folder):
        raise NotACheckpointError(f"{folder} holds neither an adapter ({CONFIG}) nor a trained head ({TASK})")
    if has_trained(folder) != is_pair_task(folder):
        lacking = TASK if has_trained(folder) else TRAINED
        raise NotACheckpointError(
            f"{folder} lacks {lacking}: the training that wrote it was cut short: resume it"
        )
    if has_trunk(folder) and (has_adapter(folder) or has_trained(folder)):
        other = CONFIG if has_adapter(folder) else TRAINED
        raise ConfigError(
            f"{folder} holds {other} and {TRUNK}: two trainings, remove what is of the older one"
        )
    return folder


def check_folder(
    folder: Path, origin: Origin, any_base: bool = False, on_event: OnEvent = ignore
) -> AnyTask | None:
    """Read what can be read of an adapter folder before the base is loaded.

    Returns:
        What it was trained for; None where it holds an adapter alone.

    Raises:
        InputError: it was trained on another base.
        CheckpointError: a file is missing, damaged or not what this package reads.
    """
    task = read_any_task(folder) if has_task(folder) else None
    _check_base(folder, task, origin, any_base)
    if has_adapter(folder):
        stored = read_stored(folder)
        require_base(str(folder), stored.config.base_name, stored.base, origin, any_base)
        for message in stored.notices():
            on_event(Notice(message))
    return task


def _check_base(folder: Path, task: AnyTask | None, origin: Origin | None, any_base: bool) -> None:
    if isinstance(task, Task):
        check_base(task, origin, any_base)
    elif task is not None:
        require_base(str(folder), task.base.name, task.base.checkpoint or None, origin, any_base)


def restore(
    model: Aimv2Model | Aimv2VisionModel, folder: Path, any_base: bool = False
) -> Aimv2Model | Aimv2VisionModel | Classifier:
    """The model with what a folder holds: as a `Classifier`, with its labels, where there is a trained head.

    Raises:
        InputError: the folder's contents were trained on another base.
        CheckpointError: a file is missing, damaged, or does not fit the model.
    """
    origin: Origin | None = getattr(model, "origin", None)
    task = read_any_task(folder) if has_task(folder) else None
    _check_base(folder, task, origin, any_base)
    put_on(model, folder, any_base)
    settle(model)
    return _classifier(model, folder, task) if isinstance(task, Task) else model


def put_on(model: Aimv2Model | Aimv2VisionModel, folder: Path, any_base: bool = False) -> None:
    """Put the adapter of a folder into a model, and trained tensors in place of the model's; or nothing.

    Raises:
        InputError: the adapter was trained on another base, or a pair was trained and this is none.
        CheckpointError: a file is damaged, or does not fit the model.
    """
    if has_trained(folder):
        if not isinstance(model, Aimv2Model):
            name = getattr(getattr(model, "origin", None), "name", "this model")
            raise InputError(
                f"{folder} was trained on an image-text pair, and {name} is an image encoder alone: load the pair"
            )
        load_trained(folder, model)
    if has_adapter(folder):
        apply_adapter(model, folder, any_base)
    if has_trunk(folder):
        load_trunk(folder, model.vision)
        if (origin := getattr(model, "origin", None)) is not None:
            model.origin = dataclasses.replace(origin, adapter=trunk_hash(folder))
    if has_trained(folder) and (origin := getattr(model, "origin", None)) is not None:
        model.origin = dataclasses.replace(origin, adapter=trained_hash(folder, origin.adapter))


def _classifier(model: Aimv2Model | Aimv2VisionModel, folder: Path, task: Task) -> Classifier:
    trunk = model.vision
    classifier = Classifier(trunk, read_head(folder, task, trunk.config.hidden_size), task.pooling)
    classifier.labels = task.labels
    classifier.task = MULTI_LABEL if task.multi_label else SINGLE_LABEL
    classifier.origin = trunk.origin = getattr(model, "origin", None)
    classifier.eval()
    return classifier
