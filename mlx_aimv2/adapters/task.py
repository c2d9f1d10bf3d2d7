"""What a trained adapter or head is for: `task.json`, and the head's own tensors in `head.safetensors`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..checkpoints.files import inside, open_tensors, read_header
from ..checkpoints.identity import Origin
from ..checkpoints.matching import check_fit
from ..errors import ConfigError, InputError, NotACheckpointError
from ..models.classifier import POOLINGS, make_head
from ..processing.image_config import ImageProcessorConfig
from ..storage.atomic import replacing
from ..storage.json_files import read_json
from .base_check import require_base

TASK, HEAD = "task.json", "head.safetensors"
SWAP = ".best"  # a folder in which files of a better epoch wait to be moved to their places
FORMAT = 1
TASKS = ("classification",)
BASE_KEYS = ("name", "revision", "checkpoint", "layout", "dtype", "quantization")


@dataclass(frozen=True)
class Task:
    """What a head was trained for, and on what.

    Attributes:
        labels: names of the classes, in the order of the logits.
        base: the checkpoint it was trained on.
        method: how, such as "lora".
        pooling: what the head is given: "mean", "head" or "attentive".
        head: what `make_head` makes the head from.
        preprocessing: keys of `preprocessor_config.json`; none for those of the base.
        multi_label: whether an image may be of several classes, or of none.
        task: "classification".
        version: of the package that wrote it.
    """

    labels: tuple[str, ...]
    base: Origin
    method: str
    pooling: str = "mean"
    head: Mapping[str, Any] = field(default_factory=lambda: {"kind": "linear"})
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    multi_label: bool = False
    task: str = "classification"
    version: str = ""

    def __post_init__(self) -> None:
        """Refuse what no classifier could be made from.

        Raises:
            ConfigError: a value has the wrong type or does not exist.
        """
        if self.task not in TASKS:
            raise ConfigError(f"task is {self.task!r:.80}, which is not one of {', '.join(TASKS)}")
        if self.pooling not in POOLINGS:
            raise ConfigError(f"pooling is {self.pooling!r:.80}, which is not one of {', '.join(POOLINGS)}")
        if not self.labels or not all(isinstance(label, str) and label for label in self.labels):
            raise ConfigError("labels has to be a list of names, and none of them empty")
        if any("\ud800" <= character <= "\udfff" for label in self.labels for character in label):
            raise ConfigError("labels has a name with half a surrogate pair, which is no text")
        if len(set(self.labels)) < len(self.labels):
            raise ConfigError("labels names a class twice")
        if not isinstance(self.multi_label, bool):
            raise ConfigError(f"multi_label is {self.multi_label!r:.80}, but has to be true or false")
        check_types(self, objects=("head", "preprocessing"), texts=("method", "version"))
        self.image_config()

    def image_config(self) -> ImageProcessorConfig | None:
        """How images were prepared in training; None for as the base says.

        Raises:
            ConfigError: a setting has the wrong type or makes no sense.
        """
        return ImageProcessorConfig.from_dict(self.preprocessing) if self.preprocessing else None

    def to_dict(self) -> dict[str, Any]:
        """The keys of task.json."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        maps = {name: dict(plain[name]) for name in ("head", "preprocessing")}
        return {"format": FORMAT, **plain, **maps, "labels": list(self.labels), "base": base_entry(self.base)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Task:
        """Read the keys of task.json.

        Raises:
            ConfigError: keys are unknown or missing, a value is wrong, or a later version wrote the file.
        """
        values = dict(data)
        written = values.pop("format", None)
        if written != FORMAT:
            raise ConfigError(f"format is {written!r:.80}, and this version reads {FORMAT}: update mlx-aimv2")
        known = {one.name for one in fields(cls)}
        same_keys(values, known, "task.json")
        base, labels = base_of_entry(values["base"]), values["labels"]
        if not isinstance(labels, list):
            raise ConfigError(f"labels has to be a list of names, not a {type(labels).__name__}")
        return cls(**values | {"labels": tuple(labels), "base": base})


def check_types(task: object, objects: Sequence[str], texts: Sequence[str]) -> None:
    """Refuse values of a task.json that have the wrong type.

    Raises:
        ConfigError: one of the fields named is no object, or no text.
    """
    for names, kind, words in ((objects, Mapping, "an object"), (texts, str, "a text")):
        for name in names:
            if not isinstance(value := getattr(task, name), kind):
                raise ConfigError(f"{name} has to be {words}, not a {type(value).__name__}")


def base_entry(base: Origin) -> dict[str, str | None]:
    """A base as task.json names it."""
    return {name: getattr(base, name) for name in BASE_KEYS}


def base_of_entry(entry: object) -> Origin:
    """The base that task.json names.

    Raises:
        ConfigError: keys are unknown or missing, or a value is no text.
    """
    if not isinstance(entry, Mapping):
        raise ConfigError(f"base has to be an object, not a {type(entry).__name__}")
    same_keys(entry, set(BASE_KEYS), "base")
    for name, value in entry.items():
        if not isinstance(value, str) and not (value is None and name in ("revision", "quantization")):
            raise ConfigError(f"base: {name} has to be a text, not {value!r:.80}")
    return Origin(**entry)


def same_keys(found: Mapping[str, Any], known: set[str], where: str) -> None:
    """Refuse an object with other keys than it should have.

    Raises:
        ConfigError: it has, naming them.
    """
    differences = [
        f"{len(names)} {what}: {', '.join(sorted(names))}"
        for what, names in (("missing", known - found.keys()), ("unknown", found.keys() - known))
        if names
    ]
    if differences:
        raise ConfigError(f"{where} has other keys than it should: {'; '.join(differences)}")


def has_task(folder: Path) -> bool:
    """Whether a folder holds a trained head, or a part of one."""
    return any((folder / name).exists() for name in (TASK, HEAD))


class Written(Protocol):
    """What task.json can be made of."""

    def to_dict(self) -> dict[str, Any]:
        """Its keys."""


def write_task(folder: Path, task: Written) -> Path:
    """Write task.json, whole or not at all; its path.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / TASK
    with replacing(path) as partial:
        partial.write_text(json.dumps(task.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_task(folder: Path) -> Task:
    """Read task.json.

    Raises:
        NotACheckpointError: there is none.
        ConfigError: it is damaged, or not what this package writes.
    """
    path = inside(folder, TASK)
    if not path.is_file():
        raise NotACheckpointError(f"{folder} holds no trained head: it lacks {TASK}")
    try:
        return Task.from_dict(read_json(path))
    except ConfigError as error:
        raise error if str(path) in str(error) else ConfigError(f"{path}: {error}") from error


def check_base(task: Task, origin: Origin | None, any_base: bool = False) -> None:
    """Refuse a model that is not the one a head was trained on; a copy of it that is stored otherwise is another.

    Args:
        task: of the head.
        origin: of the model.
        any_base: let everything pass.

    Raises:
        InputError: another base, naming both.
    """
    require_base("this head", task.base.name, task.base.checkpoint or None, origin, any_base)


def read_head(folder: Path, task: Task, width: int) -> nn.Module:
    """The trained head of a folder.

    Args:
        folder: with `head.safetensors`.
        task: of the same folder.
        width: D, of the encoder.

    Raises:
        NotACheckpointError: there is none.
        ConfigError: task.json describes no head.
        MismatchError: tensors are missing, unexpected or of the wrong shape; all of them in one message.
        DamagedFileError: the file is damaged.
    """
    path = inside(folder, HEAD)
    if not path.is_file():
        raise NotACheckpointError(f"{folder} holds no trained head: it lacks {HEAD}")
    try:
        head = make_head(task.head, width, len(task.labels))
    except InputError as error:
        raise ConfigError(f"{folder / TASK}: {error}") from error
    tensors = open_tensors(read_header((path,)))
    check_fit(dict(tree_flatten(head.parameters())), tensors, [], str(path), f"the head in {TASK}")
    head.load_weights([(name, x.astype(mx.float32)) for name, x in tensors.items()])
    mx.eval(head.parameters())
    head.eval()
    return head


def with_base(task: Task, base: Origin) -> Task:
    """The same for a head on another checkpoint, as one with an adapter fused into it is."""
    return dataclasses.replace(task, base=base)
