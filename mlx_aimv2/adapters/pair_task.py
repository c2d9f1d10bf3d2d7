"""What training an image-text pair leaves beside an adapter: its purpose in `task.json`, and `trained.safetensors`.

The second file holds the pair's own tensors that were trained, by the names they have in the pair: projections and
logit scale beside an adapter, whole encoders where they were trained as such.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ..checkpoints.files import inside, open_tensors, read_header
from ..checkpoints.identity import Origin, checkpoint_hash
from ..checkpoints.matching import check_fit
from ..errors import ConfigError, NotACheckpointError
from ..processing.image_config import ImageProcessorConfig
from ..quantization.scheme import unpack_modules
from ..storage.json_files import read_json
from .attach import TOWERS, adapted
from .task import FORMAT, TASK, Task, base_entry, base_of_entry, check_types, same_keys

TRAINED = "trained.safetensors"
CONTRASTIVE = "contrastive"
STATES = ("frozen", "adapted", "trained")


@dataclass(frozen=True)
class PairTask:
    """What a pair was trained for, and on what.

    Attributes:
        base: the checkpoint it was trained on.
        method: how, such as "lora".
        towers: what became of "vision" and "text": "frozen", "adapted" or "trained".
        preprocessing: keys of `preprocessor_config.json`; none for those of the base.
        task: "contrastive".
        version: of the package that wrote it.
    """

    base: Origin
    method: str
    towers: Mapping[str, str]
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    task: str = CONTRASTIVE
    version: str = ""

    def __post_init__(self) -> None:
        """Refuse what no pair could have been trained as.

        Raises:
            ConfigError: a value has the wrong type or does not exist.
        """
        if self.task != CONTRASTIVE:
            raise ConfigError(f"task is {self.task!r:.80}, which is not {CONTRASTIVE}")
        check_types(self, objects=("towers", "preprocessing"), texts=("method", "version"))
        if set(self.towers) != set(TOWERS) or not set(map(str, self.towers.values())) <= set(STATES):
            raise ConfigError(
                f"towers has to say of {' and '.join(TOWERS)} whether each was {', '.join(STATES)}"
            )
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
        maps = {name: dict(plain[name]) for name in ("towers", "preprocessing")}
        return {"format": FORMAT, **plain, **maps, "base": base_entry(self.base)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PairTask:
        """Read the keys of task.json.

        Raises:
            ConfigError: keys are unknown or missing, a value is wrong, or a later version wrote the file.
        """
        values = dict(data)
        written = values.pop("format", None)
        if written != FORMAT:
            raise ConfigError(f"format is {written!r:.80}, and this version reads {FORMAT}: update mlx-aimv2")
        same_keys(values, {one.name for one in fields(cls)}, TASK)
        return cls(**values | {"base": base_of_entry(values["base"])})


AnyTask = Task | PairTask


def read_any_task(folder: Path) -> AnyTask:
    """Read task.json, whatever the task.

    Raises:
        NotACheckpointError: there is none.
        ConfigError: it is damaged, or not what this package writes.
    """
    path = inside(folder, TASK)
    if not path.is_file():
        raise NotACheckpointError(f"{folder} holds no trained head: it lacks {TASK}")
    try:
        data = read_json(path)
        return PairTask.from_dict(data) if data.get("task") == CONTRASTIVE else Task.from_dict(data)
    except ConfigError as error:
        raise error if str(path) in str(error) else ConfigError(f"{path}: {error}") from error


def is_pair_task(folder: Path) -> bool:
    """Whether a folder says that a pair was trained.

    Raises:
        ConfigError: its task.json is damaged.
    """
    return (folder / TASK).is_file() and isinstance(read_any_task(folder), PairTask)


def has_trained(folder: Path) -> bool:
    """Whether a folder holds tensors of a pair that were trained."""
    return (folder / TRAINED).exists()


def trained_tensors(pair: nn.Module) -> dict[str, mx.array]:
    """What of a pair is trained, apart from its adapters, by name."""
    inside_adapters = tuple(f"{path}." for path in adapted(pair))
    found = dict(tree_flatten(pair.trainable_parameters()))
    return {name: x for name, x in found.items() if not name.startswith(inside_adapters)}


def load_trained(folder: Path, pair: nn.Module) -> None:
    """Put trained tensors in place of a pair's own, in the dtype that those have; plain ones for packed ones.

    Raises:
        MismatchError: a tensor is not the pair's, or has another shape there.
        DamagedFileError: the file is damaged.
    """
    path = inside(folder, TRAINED)
    tensors = open_tensors(read_header((path,)))
    unpack_modules(pair, pair.vision_model.rms_norm.weight.dtype, tensors)
    own = dict(tree_flatten(pair.parameters()))
    check_fit({name: own[name] for name in tensors if name in own}, tensors, [], str(path), "the pair")
    pair.load_weights([(name, x.astype(own[name].dtype)) for name, x in tensors.items()], strict=False)


def trained_hash(folder: Path, adapter: str | None) -> str:
    """The identity of what was trained: those tensors, and the adapter beside them.

    Raises:
        DamagedFileError: the file is damaged.
    """
    found = checkpoint_hash(read_header((inside(folder, TRAINED),)))
    if adapter is None:
        return found
    return hashlib.sha256(f"{found} {adapter}".encode()).hexdigest()[:16]
