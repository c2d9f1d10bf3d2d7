"""What a fine-tuning can be told, each option once: the command line, a YAML file and Python read this table."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..presets import DEFAULT_MODEL
from .methods import METHODS
from .schedule import SCHEDULES
from .tasks import TASKS, TOWER_STATES, check_task

OPTIMIZERS = ("adamw", "adam", "sgd", "lion", "adafactor", "muon")
CLASS_WEIGHTS = ("none", "balanced")
NOT_NEGATIVE = (
    "max_grad_norm", "patience", "seed", "mixup", "cutmix", "color_jitter", "randaugment",
    "randaugment_magnitude",
)  # fmt: skip
WEIGHT_DECAY = 0.01  # of every optimizer that has one
MAX_CONFIG = 2**20  # bytes of a YAML file
DATA, METHOD, TRAINING, AUGMENTATION, RUN = "Data", "Method", "Training", "Augmentation", "Run"


def option(default: Any, help: str, panel: str, flag: str | None = None) -> Any:
    """A field with what the command line says of it; ``flag`` where it is called otherwise there."""
    return dataclasses.field(default=default, metadata={"help": help, "panel": panel, "flag": flag})


@dataclass(frozen=True)
class FinetuneOptions:
    """How to fine-tune; each field is explained in its metadata, as `--help` shows it."""

    data: str = option(
        "",
        "A folder per class, train/ and val/ folders, or a CSV or JSONL file; for captions such a file, or a"
        " folder with a .txt beside each picture.",
        DATA,
    )
    task: str = option(
        "classify",
        f"{', '.join(TASKS)}: learn labels, or which caption belongs to which picture.",
        METHOD,
    )
    model: str = option(DEFAULT_MODEL, "A checkpoint folder, a repository, or a short name.", METHOD)
    revision: str | None = option(None, "Branch, tag or commit of the repository.", METHOD)
    adapter_path: str = option("adapters", "The folder to write.", RUN)
    fine_tune_type: str = option("lora", f"{', '.join(METHODS)}.", METHOD)
    val_fraction: float = option(
        0.2, "Part of the pictures kept for validation, where the data has none.", DATA
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
    target_modules: str = option("q,k,v,out,gate,up,down", "Projections that LoRA and DoRA adapt.", METHOD)
    rank: int = option(8, "Rank of LoRA and DoRA.", METHOD)
    alpha: float = option(16.0, "Scale of LoRA and DoRA: alpha / rank.", METHOD)
    dropout: float = option(0.0, "Dropout before LoRA and DoRA.", METHOD)
    batch_norm: bool = option(False, "Normalize features before a linear head, as AIM's probes do.", METHOD)
    neighbours: int = option(20, "Neighbours that vote, for knn.", METHOD)

    epochs: int = option(10, "Times to go over the training pictures.", TRAINING)
    iters: int | None = option(None, "Steps to do instead of epochs.", TRAINING)
    batch_size: int = option(16, "Pictures computed at once.", TRAINING)
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
        " [default: the first]",
        TRAINING,
    )
    patience: int = option(0, "Stop after so many epochs without improvement; 0 for never.", TRAINING)
    sweep: bool = option(False, "Try learning rates and weight decays (probes only).", TRAINING)

    random_resized_crop: float = option(
        0.0, "Train on crops of at least this part of a picture; 0 for whole pictures.", AUGMENTATION
    )
    flip: float = option(0.0, "Chance of a picture being mirrored.", AUGMENTATION)
    color_jitter: float = option(0.0, "Strength of changes of brightness, contrast and colour.", AUGMENTATION)
    randaugment: int = option(0, "Operations of RandAugment on each picture.", AUGMENTATION)
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
    resume: bool = option(False, "Go on with the run in --adapter-path.", RUN)
    seed: int = option(0, "Of splits, order, augmentation and fresh weights.", RUN)

    def __post_init__(self) -> None:
        """Refuse values that do not exist, and options that the method has no use for.

        Raises:
            InputError: with the name of the option and what it may be.
        """
        _one_of("task", self.task, TASKS)
        _one_of("fine_tune_type", self.fine_tune_type, METHODS)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("class_weights", self.class_weights, CLASS_WEIGHTS)
        _one_of("pooling", self.pooling, ("mean", "head"))
        _one_of("dtype", self.dtype, ("auto", "float32", "bfloat16", "float16"))
        for name in ("epochs", "batch_size", "grad_accumulation_steps", "rank", "neighbours", "save_every"):
            _at_least(name, getattr(self, name), 1)
        if self.weight_decay is not None:
            _at_least("weight_decay", self.weight_decay, 0)
        if self.weight_decay and self.optimizer == "adam":
            raise InputError(f"--weight-decay {self.weight_decay}: adam has none: use adamw, or leave it out")
        for name in ("iters", "num_layers"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        for name in NOT_NEGATIVE:
            _at_least(name, getattr(self, name), 0)
        for name in ("learning_rate", "head_lr"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{_flag(name)} must be more than 0, not {getattr(self, name)}")
        for name in ("dropout", "ema", "label_smoothing", "val_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(
                    f"{_flag(name)} must be at least 0 and less than 1, not {getattr(self, name)}"
                )
        for name in ("warmup", "flip", "random_resized_crop"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{_flag(name)} must be between 0 and 1, not {getattr(self, name)}")
        if not 0 < self.layer_decay <= 1:
            raise InputError(f"--layer-decay must be more than 0 and at most 1, not {self.layer_decay}")
        method = METHODS[self.fine_tune_type]
        if self.sweep and (not method.frozen or method.head == "knn"):
            raise InputError(f"--sweep is for linear and attentive, not for {self.fine_tune_type}")
        if method.full and self.dtype not in ("auto", "float32"):
            raise InputError(
                f"--dtype {self.dtype}: full changes weights by less than that can hold: leave it out, or use lora"
            )
        augmented = self.random_resized_crop or self.flip or self.color_jitter or self.randaugment
        if method.frozen and (augmented or self.mixup or self.cutmix):
            raise InputError(
                f"{self.fine_tune_type} computes features once, so pictures cannot be augmented: leave that out,"
                " or use lora, dora or full"
            )
        check_task(self)

    @property
    def best_metric(self) -> str:
        """The metric given, or the task's own."""
        return self.metric or next(iter(TASKS[self.task].metrics))

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate given, or the method's own."""
        return self.learning_rate or METHODS[self.fine_tune_type].learning_rate

    @property
    def decay(self) -> float:
        """The weight decay given, or the optimizer's own."""
        if self.weight_decay is None:
            return 0.0 if self.optimizer == "adam" else WEIGHT_DECAY
        return self.weight_decay


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _one_of(name: str, value: object, known: Any) -> None:
    if value not in known:
        raise InputError(f"{_flag(name)} {value!r} is not one of {', '.join(known)}")


def _at_least(name: str, value: float, least: int) -> None:
    if not value >= least or value == math.inf:
        raise InputError(f"{_flag(name)} must be at least {least}, not {value}")


def read_config(path: str | Path) -> dict[str, Any]:
    """The options of a YAML file, with the types of their fields: `1e-5` is a number there.

    Raises:
        InputError: it cannot be read, is no YAML mapping, or holds an option that does not exist or a value of
            another type.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        if Path(path).stat().st_size > MAX_CONFIG:
            raise InputError(f"{path} is too large for a configuration")
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, Mapping):
        raise InputError(f"{path} must hold options, such as `learning_rate: 1e-5`, one in a line")
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
    raise InputError(f"{_flag(name)} must be {_words(wanted)}, not {value!r}")


def _words(kind: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[kind]
