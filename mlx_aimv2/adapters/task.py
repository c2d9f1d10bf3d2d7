"""`task.json`: the task and the base of a trained adapter, head or image-text pair."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ..checkpoints.files import inside
from ..checkpoints.identity import Origin
from ..errors import ConfigError, NotACheckpointError
from ..models.classifier import POOLINGS
from ..processing.image_config import ImageProcessorConfig
from ..storage.atomic import replacing
from ..storage.json_files import read_json
from .attach import TOWERS

TASK = "task.json"
SWAP = ".best"  # the folder that holds the files of a better epoch until they replace the old ones
FORMAT = 1
CLASSIFICATION, CONTRASTIVE = "classification", "contrastive"
BASE_KEYS = ("name", "revision", "checkpoint", "layout", "dtype", "quantization")
TOWER_STATES = ("frozen", "adapted", "trained")
T = TypeVar("T", bound="AnyTask")


@dataclass(frozen=True, kw_only=True)
class AnyTask:
    """The keys that every task.json has; raises ConfigError for a value that is not valid.

    Attributes:
        base: the checkpoint that was trained.
        method: how it was trained, such as "lora".
        preprocessing: keys of `preprocessor_config.json`; empty for those of the base.
        version: of the package that wrote the file.
        task: "classification" or "contrastive".
    """

    NAME: ClassVar[str]
    TYPES: ClassVar[dict[str, tuple[type, str]]] = {
        "preprocessing": (Mapping, "an object"), "method": (str, "a text"), "version": (str, "a text"),
    }  # fmt: skip

    base: Origin
    method: str
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    task: str = ""

    def __post_init__(self) -> None:
        if self.task != self.NAME:
            raise ConfigError(f"task is {self.task!r:.80}, which is not {self.NAME}")
        for name, (kind, noun) in self.TYPES.items():
            if not isinstance(value := getattr(self, name), kind):
                raise ConfigError(f"{name} has to be {noun}, not a {type(value).__name__}")
        self.image_config()

    def image_config(self) -> ImageProcessorConfig | None:
        """How training prepared images; None where the base's settings apply.

        Raises:
            ConfigError: a setting has the wrong type or makes no sense.
        """
        return ImageProcessorConfig.from_dict(self.preprocessing) if self.preprocessing else None

    def to_dict(self) -> dict[str, Any]:
        """The keys of task.json."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values = {name: dict(x) if isinstance(x, Mapping) else x for name, x in values.items()}
        return {"format": FORMAT, **values, "base": {name: getattr(self.base, name) for name in BASE_KEYS}}

    @classmethod
    def from_dict(cls: type[T], data: Mapping[str, Any]) -> T:
        """Read the keys of task.json.

        Raises:
            ConfigError: keys are unknown or missing, a value is wrong, or a later version wrote the file.
        """
        values = dict(data)
        written = values.pop("format", None)
        if written != FORMAT:
            raise ConfigError(f"format is {written!r:.80}, and this version reads {FORMAT}: update mlx-aimv2")
        _check_keys(values, {field.name for field in fields(cls)}, TASK)
        return cls(**values | {"base": _read_base(values["base"])})


@dataclass(frozen=True, kw_only=True)
class Task(AnyTask):
    """The task of a trained classification head.

    Attributes:
        labels: names of the classes, in the order of the logits.
        pooling: the input of the head: "mean", "head" or "attentive".
        head: the description of the head, as `make_head` takes it.
        multi_label: whether an image may have several labels, or none.
    """

    NAME: ClassVar[str] = CLASSIFICATION
    TYPES: ClassVar[dict[str, tuple[type, str]]] = {"head": (Mapping, "an object"), **AnyTask.TYPES}

    labels: tuple[str, ...]
    pooling: str = "mean"
    head: Mapping[str, Any] = field(default_factory=lambda: {"kind": "linear"})
    multi_label: bool = False
    task: str = CLASSIFICATION

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling not in POOLINGS:
            raise ConfigError(f"pooling is {self.pooling!r:.80}, which is not one of {', '.join(POOLINGS)}")
        if not isinstance(self.labels, list | tuple):
            raise ConfigError(f"labels has to be a list of names, not a {type(self.labels).__name__}")
        if not self.labels or not all(isinstance(label, str) and label for label in self.labels):
            raise ConfigError("labels has to be a list of names, and none of them empty")
        if any("\ud800" <= character <= "\udfff" for label in self.labels for character in label):
            raise ConfigError("labels has a name with half a surrogate pair, which is no text")
        if len(set(self.labels)) < len(self.labels):
            raise ConfigError("labels names a class twice")
        if not isinstance(self.multi_label, bool):
            raise ConfigError(f"multi_label is {self.multi_label!r:.80}, but has to be true or false")
        object.__setattr__(self, "labels", tuple(self.labels))


@dataclass(frozen=True, kw_only=True)
class PairTask(AnyTask):
    """The task of an image-text pair that was trained on captions.

    Attributes:
        towers: the state of "vision" and "text": "frozen", "adapted" or "trained".
    """

    NAME: ClassVar[str] = CONTRASTIVE
    TYPES: ClassVar[dict[str, tuple[type, str]]] = {"towers": (Mapping, "an object"), **AnyTask.TYPES}

    towers: Mapping[str, str]
    task: str = CONTRASTIVE

    def __post_init__(self) -> None:
        super().__post_init__()
        if set(self.towers) != set(TOWERS) or not set(map(str, self.towers.values())) <= set(TOWER_STATES):
            states = ", ".join(TOWER_STATES)
            raise ConfigError(f"towers has to say of {' and '.join(TOWERS)} whether each was {states}")


def read_task(folder: Path) -> Task | PairTask:
    """Read the task.json of a folder.

    Raises:
        NotACheckpointError: the folder has none.
        ConfigError: the file is damaged, or not as this package writes it.
    """
    path = inside(folder, TASK)
    if not path.is_file():
        raise NotACheckpointError(f"{folder} holds no trained head: it lacks {TASK}")
    data = read_json(path)
    try:
        return (PairTask if data.get("task") == CONTRASTIVE else Task).from_dict(data)
    except ConfigError as error:
        raise error.at(path) from error


def write_task(folder: Path, task: AnyTask) -> Path:
    """Write task.json, whole or not at all.

    Returns:
        The file.

    Raises:
        OutputError: the file cannot be written.
    """
    path = folder / TASK
    with replacing(path) as partial:
        partial.write_text(json.dumps(task.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _read_base(entry: object) -> Origin:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"base has to be an object, not a {type(entry).__name__}")
    _check_keys(entry, set(BASE_KEYS), "base")
    for name, value in entry.items():
        if not isinstance(value, str) and not (value is None and name in ("revision", "quantization")):
            raise ConfigError(f"base: {name} has to be a text, not {value!r:.80}")
    return Origin(**entry)


def _check_keys(values: Mapping[str, Any], known: set[str], where: str) -> None:
    differences = [
        f"{len(names)} {adjective}: {', '.join(sorted(names))}"
        for adjective, names in (("missing", known - values.keys()), ("unknown", values.keys() - known))
        if names
    ]
    if differences:
        raise ConfigError(f"{where} has other keys than it should: {'; '.join(differences)}")
