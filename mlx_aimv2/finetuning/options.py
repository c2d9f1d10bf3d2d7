"""What a fine-tuning can be told, each option once: the command line, a YAML file and Python read this table."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..adapters.targets import TARGETS
from ..datasets.options import Columns, Reading
from ..errors import InputError
from ..options.fields import option
from ..presets import DEFAULT_MODEL
from ..storage.text_files import read_text
from ..training.schedule import SCHEDULES
from .bounds import OPTIMIZERS, WITHOUT_DECAY, check_choice, check_values, flag
from .methods import METHODS, check_method
from .tasks import TASKS, TOWER_STATES, check_task

WEIGHT_DECAY = 0.01  # of every optimizer that has one
MAX_CONFIG = 2**20  # bytes of a YAML file
DATA, METHOD, TRAINING, AUGMENTATION, RUN = "Data", "Method", "Training", "Augmentation", "Run"


@dataclass(frozen=True)
class FinetuneOptions:
    """How to fine-tune; each field is explained in its metadata, as `--help` shows it."""

    data: str = option(
        "",
        "A folder per class, train/ and val/ folders, or a table (CSV, JSON, Parquet); for captions such a table, or"
        " a folder with a .txt beside each image.",
        DATA,
    )
    task: str = option(
        "classify",
        f"{', '.join(TASKS)}: learn labels, or which caption belongs to which image.",
        METHOD,
    )
    model: str = option(DEFAULT_MODEL, "A checkpoint folder, a repository, or a short name.", METHOD)
    revision: str | None = option(None, "Branch, tag or commit of the repository.", METHOD)
    adapter_path: str = option("adapters", "The folder to write.", RUN)
    fine_tune_type: str = option("lora", f"{', '.join(METHODS)}.", METHOD)
    val_fraction: float = option(
        0.2, "Part of the images kept for validation, where the data has none.", DATA
    )
    exclude: tuple[str, ...] = option(
        (), "Leave out files and folders of this name or path; may be given several times.", DATA
    )
    image_column: str | None = option(
        None, "Column of a table with the path. [default: as it is called]", DATA
    )
    label_column: str | None = option(None, "Column with the label, or several separated by ;.", DATA)
    caption_column: str | None = option(None, "Column with the caption.", DATA)
    image_root: str | None = option(
        None, "What paths in a table are relative to. [default: the folder of the table]", DATA
    )
    class_weights: str = option("none", "none, or balanced: rare classes count more.", DATA)

    pooling: str = option(
        "mean", "What a linear head sees: mean (of the tokens) or head (the pooling head).", METHOD
    )
    vision_tower: str | None = option(
        None,
        f"Contrastive: {', '.join(TOWER_STATES)}. [default: adapted, or trained for full]",
        METHOD,
    )
    text_tower: str | None = option(
        None, "The same for the text encoder. [default: adapted, or trained for full]", METHOD
    )
    num_layers: int | None = option(None, "Train only the last so many layers. [default: all]", METHOD)
    target_modules: str = option(",".join(TARGETS), "Projections that LoRA and DoRA adapt.", METHOD)
    rank: int = option(8, "Rank of LoRA and DoRA.", METHOD)
    alpha: float = option(16.0, "Scale of LoRA and DoRA: alpha / rank.", METHOD)
    dropout: float = option(0.0, "Dropout before LoRA and DoRA.", METHOD)
    batch_norm: bool = option(False, "Normalize features before a linear head, as AIM's probes do.", METHOD)
    neighbours: int = option(20, "Neighbours that vote, for knn.", METHOD)

    epochs: int | None = option(
        None, "Times to go over the training images. [default: 10, or more where the data is small]", TRAINING
    )
    iters: int | None = option(None, "Steps to do instead of epochs.", TRAINING)
    batch_size: int = option(16, "Images computed at once.", TRAINING)
    grad_accumulation_steps: int = option(1, "Batches whose gradients make one step.", TRAINING)
    learning_rate: float | None = option(None, "Highest learning rate. [default: the method's]", TRAINING)
    head_lr: float | None = option(
        None,
        "Learning rate of the head; of a pair, of what is outside its towers. [default: --learning-rate]",
        TRAINING,
    )
    layer_decay: float = option(1.0, "Learning rate of a layer over that of the next one.", TRAINING)
    weight_decay: float | None = option(None, f"Weight decay. [default: {WEIGHT_DECAY}]", TRAINING)
    optimizer: str = option("adamw", f"{', '.join(OPTIMIZERS)}.", TRAINING)
    schedule: str = option("cosine", f"{', '.join(SCHEDULES)}.", TRAINING)
    warmup: float = option(0.1, "Part of all steps in which the learning rate rises.", TRAINING)
    max_grad_norm: float = option(1.0, "Clip the gradient to this norm; 0 for not at all.", TRAINING)
    grad_checkpoint: bool = option(False, "Compute layers twice: less memory, more time.", TRAINING)
    ema: float = option(
        0.0, "Average weights over steps with this decay, such as 0.999; 0 for not at all.", TRAINING
    )
    metric: str | None = option(
        None,
        f"Which epoch is best: {'; for captions '.join(', '.join(x.metrics) for x in TASKS.values())}."
        " [default: the first; map for several labels]",
        TRAINING,
    )
    patience: int = option(
        0,
        "Stop after so many epochs without improvement, those of the warm-up not counted; 0 for never.",
        TRAINING,
    )
    sweep: bool = option(False, "Try learning rates and weight decays (probes only).", TRAINING)

    random_resized_crop: float = option(
        0.0, "Train on crops of at least this part of an image; 0 for whole images.", AUGMENTATION
    )
    flip: float = option(0.0, "Chance of an image being mirrored.", AUGMENTATION)
    color_jitter: float = option(0.0, "Strength of changes of brightness, contrast and colour.", AUGMENTATION)
    randaugment: int = option(0, "Operations of RandAugment on each image.", AUGMENTATION)
    randaugment_magnitude: float = option(9.0, "Their strength, 0 to 30.", AUGMENTATION)
    mixup: float = option(0.0, "Alpha of mixup.", AUGMENTATION)
    cutmix: float = option(0.0, "Alpha of cutmix.", AUGMENTATION)
    label_smoothing: float = option(0.0, "Part of every target spread over all classes.", AUGMENTATION)

    dtype: str = option(
        "auto",
        "float32, bfloat16, float16, or auto: bfloat16 for a frozen encoder on a GPU, else float32.",
        RUN,
    )
    save_every: int = option(100, "Steps between saved states, besides every epoch.", RUN)
    resume: bool = option(
        False, "Go on with the run in --adapter-path; more --epochs or --iters go on after its end.", RUN
    )
    resume_adapter_file: str | None = option(
        None,
        "Begin with the weights of this adapter or head: a folder, or the adapter_model.safetensors in it.",
        RUN,
    )
    seed: int = option(0, "Of splits, order, augmentation and fresh weights.", RUN)

    def __post_init__(self) -> None:
        """Refuse values that do not exist, and options that the method has no use for.

        Raises:
            InputError: with the name of the option and what it may be.
        """
        check_choice("task", self.task, tuple(TASKS))
        check_values(self)
        if self.weight_decay and self.optimizer in WITHOUT_DECAY:
            raise InputError(
                f"--weight-decay {self.weight_decay}: {self.optimizer} has none: use adamw, or leave it out"
            )
        check_task(self)
        check_method(self)

    def given(self) -> set[str]:
        """The names of the options that are not as by default."""
        return {
            field.name for field in dataclasses.fields(self) if getattr(self, field.name) != field.default
        }

    @property
    def reading(self) -> Reading:
        """How the data is read; the folder of the run is no part of it."""
        return Reading(
            exclude=self.exclude,
            avoid=(os.path.expanduser(self.adapter_path),),
            columns=Columns(self.image_column, self.label_column, self.caption_column),
            image_root=self.image_root,
        )

    @property
    def modules(self) -> tuple[str, ...]:
        """The projections to adapt, by their names."""
        return tuple(name.strip() for name in self.target_modules.split(",") if name.strip())

    @property
    def best_metric(self) -> str:
        """The metric given, or the task's own; that of images with several labels is decided by `with_metric`."""
        return self.metric or next(iter(TASKS[self.task].metrics))

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate given, or the method's own."""
        return self.learning_rate or METHODS[self.fine_tune_type].learning_rate

    @property
    def decay(self) -> float:
        """The weight decay given, or the optimizer's own."""
        if self.weight_decay is None:
            return 0.0 if self.optimizer in WITHOUT_DECAY else WEIGHT_DECAY
        return self.weight_decay


def read_config(path: str | Path) -> dict[str, Any]:
    """The options of a YAML file, with the types of their fields: `1e-5` is a number there.

    Raises:
        InputError: it cannot be read, is no YAML mapping, or holds an option twice.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise InputError.reading(path, error) from error
    if size > MAX_CONFIG:
        raise InputError(f"{path} is too large for a configuration")
    text = read_text(path)
    try:
        data, node = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, Mapping):
        raise InputError(f"{path} must hold options, such as `learning_rate: 1e-5`, one in a line")
    names = [str(key.value).replace("-", "_") for key, _ in node.value]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{path} holds {twice[0]} twice: leave one of them out")
    return {str(key).replace("-", "_"): value for key, value in data.items()}


def make_options(given: Mapping[str, Any]) -> FinetuneOptions:
    """Options of a YAML file and the command line together, as `FinetuneOptions`.

    Raises:
        InputError: an option that does not exist, or a value of another type.
    """
    kinds = typing.get_type_hints(FinetuneOptions)
    unknown = sorted(set(given) - set(kinds))
    if unknown:
        raise InputError(f"there is no option {unknown[0]!r}: see `mlx-aimv2 finetune --help`")
    return FinetuneOptions(**{name: _typed(name, value, kinds[name]) for name, value in given.items()})


def _typed(name: str, value: Any, kind: Any) -> Any:
    """``value`` as a field of this type takes it; a YAML file may give `1e-5` as a text."""
    if kind == tuple[str, ...]:
        return tuple(_typed(name, one, str) for one in ([value] if isinstance(value, str) else value))
    kinds = typing.get_args(kind) or (kind,)
    if value is None and type(None) in kinds:
        return None
    wanted = next(one for one in kinds if one is not type(None))
    try:
        if wanted is bool and isinstance(value, bool):
            return value
        if wanted is int and not isinstance(value, bool) and float(value) == int(float(value)):
            return int(float(value))
        if wanted is float and not isinstance(value, bool):
            return float(value)
        if wanted is str and isinstance(value, str | int | float) and not isinstance(value, bool):
            return str(value)
        if wanted is str and isinstance(value, list):
            return ",".join(map(str, value))
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(f"{flag(name)} must be {_words(wanted)}, not {value!r}")


def _words(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[kind]
