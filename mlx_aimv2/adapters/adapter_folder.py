"""An adapter folder, read once: its task, its base, its adapter; and how its weights get into a model."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import mlx.nn as nn

from ..checkpoints.identity import Origin
from ..errors import Advice, ConfigError, InputError, NotACheckpointError
from ..events import Notice, OnEvent, warn
from ..models.classifier import MULTI_LABEL, SINGLE_LABEL, Classifier
from ..models.lit import Aimv2Model, AnyModel
from ..processing.image_config import ImageProcessorConfig
from .attach import compute_derived
from .base_check import ANY_BASE, NamedBase, find_base, require_base
from .stored_adapter import ADAPTER_FILES, CONFIG, StoredAdapter, read_stored
from .task import SWAP, TASK, PairTask, Task, read_task
from .weights import HEAD, TRAINED, TRUNK, load_trained, load_trunk, read_head, weights_hash


@dataclass(frozen=True)
class AdapterFolder:
    """What a folder of fine-tuning, or of PEFT, holds. Its small files are read, its tensors are lazy.

    Attributes:
        path: the folder.
        task: what was trained; None for an adapter alone.
        adapter: the LoRA or DoRA adapter; None if the folder has none.
        has_trunk: whether the folder holds a whole vision encoder.
    """

    path: Path
    task: Task | PairTask | None
    adapter: StoredAdapter | None
    has_trunk: bool

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> AdapterFolder:
        """Read a folder; one that was read before is returned as it is.

        Raises:
            NotACheckpointError: there is no such folder, it holds no adapter and no head, or files are missing.
            ConfigError: a file is damaged, or the folder holds the weights of two trainings.
            DamagedFileError: the tensors of the adapter are damaged.
            PickleRefusedError: the tensors of the adapter are pickled.
        """
        if isinstance(path, AdapterFolder):
            return path
        folder = Path(path).expanduser()
        if not folder.is_dir():
            problem = "is no folder" if os.path.lexists(folder) else "there is no such folder"
            raise NotACheckpointError(f"{folder}: {problem}: name the one that holds the adapter")
        names = {name for name in (TASK, HEAD, TRUNK, TRAINED, *ADAPTER_FILES) if (folder / name).exists()}
        if (folder / SWAP).is_dir() and TASK not in names:
            raise NotACheckpointError(
                f"{folder} lacks {TASK}: the training that wrote it was cut short while it kept its best epoch:"
                " resume it"
            )
        has_adapter = not names.isdisjoint(ADAPTER_FILES)
        if not has_adapter and names.isdisjoint((TASK, HEAD)):
            raise NotACheckpointError(
                f"{folder} holds neither an adapter ({CONFIG}) nor a trained head ({TASK})"
            )
        task = None if names.isdisjoint((TASK, HEAD)) else read_task(folder)
        if (TRAINED in names) != isinstance(task, PairTask):
            missing = TASK if TRAINED in names else TRAINED
            raise NotACheckpointError(
                f"{folder} lacks {missing}: the training that wrote it was cut short: resume it"
            )
        if TRUNK in names and (has_adapter or TRAINED in names):
            other = CONFIG if has_adapter else TRAINED
            raise ConfigError(
                f"{folder} holds {other} and {TRUNK}: two trainings, remove what is of the older one"
            )
        return cls(folder, task, read_stored(folder) if has_adapter else None, TRUNK in names)

    def __fspath__(self) -> str:
        """The path of the folder: it may be given wherever a path is taken."""
        return str(self.path)

    def __str__(self) -> str:
        """The path of the folder."""
        return str(self.path)

    @property
    def has_weights(self) -> bool:
        """Whether the folder changes the weights of its base, and does not only add a head."""
        return self.adapter is not None or self.has_trunk or isinstance(self.task, PairTask)

    def image_config(self) -> ImageProcessorConfig | None:
        """How training prepared images; None where the base's settings apply."""
        return None if self.task is None else self.task.image_config()

    def base(self) -> NamedBase | None:
        """The checkpoint that was trained, as the files name it; None where they name none.

        The base of a fused checkpoint with its head beside it is the folder itself. A relative path begins in the
        working directory, or else beside the folder.

        Raises:
            InputError: the base is a folder that does not exist.
        """
        if self.task is not None:
            return find_base(self.path, self.task.base.name, self.task.base.revision)
        if self.adapter is None:
            return None
        return find_base(self.path, self.adapter.config.base_name, self.adapter.config.base_revision)

    def check(
        self,
        origin: Origin | None,
        any_base: bool = False,
        on_event: OnEvent = warn,
        source: str = "",
        advice: Advice = ANY_BASE,
    ) -> None:
        """Compare the base with a model, before its weights are read.

        Args:
            origin: of the model; None for a model that was not loaded.
            any_base: accept every model.
            on_event: called with a notice for what of the adapter is renamed or ignored.
            source: the name of the folder in messages; its path by default.
            advice: what the message advises.

        Raises:
            InputError: the model is another base; the message names both.
        """
        source = source or str(self.path)
        if not any_base:
            if self.task is not None:
                base = self.task.base
                require_base(source, base.name, base.checkpoint or None, origin, advice)
            if self.adapter is not None:
                require_base(source, self.adapter.config.base_name, self.adapter.base, origin, advice)
        for message in self.adapter.notices() if self.adapter is not None else ():
            on_event(Notice(message))

    def put_weights_on(self, model: AnyModel) -> None:
        """Put the adapter into a model, and replace the model's weights by trained ones.

        Raises:
            InputError: the folder holds a trained pair, and the model is none; or the model has adapters already.
            CheckpointError: a file is damaged, or does not fit the model.
        """
        origin: Origin | None = getattr(model, "origin", None)
        digest = None
        if isinstance(self.task, PairTask):
            if not isinstance(model, Aimv2Model):
                name = "this model" if origin is None else origin.name
                raise InputError(
                    f"{self.path} was trained on an image-text pair, and {name} is an image encoder alone: load the"
                    " pair"
                )
            load_trained(self.path, model)
        if self.adapter is not None:
            self.adapter.put_on(model)
            digest = self.adapter.hash
        if self.has_trunk:
            load_trunk(self.path, model.vision)
            digest = weights_hash(self.path, TRUNK)
        if isinstance(self.task, PairTask):
            digest = weights_hash(self.path, TRAINED, digest)
        if origin is not None and digest is not None:
            model.origin = dataclasses.replace(origin, adapter=digest)

    def put_on(self, model: AnyModel) -> AnyModel | Classifier:
        """The model with everything that the folder holds: a `Classifier` with its labels if there is a head.

        Call `check` first.

        Raises:
            InputError: as `put_weights_on`.
            CheckpointError: a file is missing, damaged, or does not fit the model.
        """
        self.put_weights_on(model)
        compute_derived(model)
        if not isinstance(self.task, Task):
            return model
        classifier = Classifier(model.vision, self.head(model.vision.config.hidden_size), self.task.pooling)
        classifier.labels = self.task.labels
        classifier.task = MULTI_LABEL if self.task.multi_label else SINGLE_LABEL
        classifier.origin = model.vision.origin = getattr(model, "origin", None)
        classifier.eval()
        return classifier

    def head(self, width: int) -> nn.Module:
        """The trained head, for an encoder of ``width`` D.

        Raises:
            CheckpointError: the folder holds no head, or the head is damaged or does not fit.
        """
        if not isinstance(self.task, Task):
            raise NotACheckpointError(f"{self.path} holds no trained head")
        return read_head(self.path, self.task, width)
