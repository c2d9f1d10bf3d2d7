"""What the value of each option may be, as tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from ..adapters.targets import MAX_RANK, short_names
from ..errors import InputError
from ..training.schedule import SCHEDULES
from .methods import METHODS

if TYPE_CHECKING:
    from .options import FinetuneOptions

OPTIMIZERS = (
    "adamw", "adam", "sgd", "lion", "adafactor", "muon", "rmsprop", "adagrad", "adadelta", "adamax",
)  # fmt: skip
WITHOUT_DECAY = ("adam", "rmsprop", "adagrad", "adadelta", "adamax")  # of the optimizers
CHOICES: Mapping[str, Collection[str]] = {
    "fine_tune_type": tuple(METHODS),
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "class_weights": ("none", "balanced"),
    "pooling": ("mean", "head"),
    "dtype": ("auto", "float32", "bfloat16", "float16"),
}
MAX_SEED = 2**64 - 1  # that MLX takes
BOUNDS: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    (
        "at least 1",
        lambda x: 1 <= x < math.inf,
        (
            "epochs", "batch_size", "grad_accumulation_steps", "neighbours", "save_every", "iters", "num_layers",
        ),
    ),
    ("at least 0", lambda x: 0 <= x < math.inf, ("weight_decay", "max_grad_norm", "patience", "mixup", "cutmix")),
    ("more than 0", lambda x: 0 < x < math.inf, ("learning_rate", "head_lr", "alpha")),
    ("at least 0 and less than 1", lambda x: 0 <= x < 1, ("dropout", "ema", "label_smoothing", "val_fraction")),
    ("more than 0 and at most 1", lambda x: 0 < x <= 1, ("layer_decay",)),
    ("between 0 and 1", lambda x: 0 <= x <= 1, ("warmup", "flip", "random_resized_crop")),
    ("between 0 and 10", lambda x: 0 <= x <= 10, ("color_jitter",)),
    ("between 0 and 30", lambda x: 0 <= x <= 30, ("randaugment_magnitude",)),
    ("between 0 and 100", lambda x: 0 <= x <= 100, ("randaugment",)),
    (f"between 1 and {MAX_RANK}", lambda x: 1 <= x <= MAX_RANK, ("rank",)),
    (f"between 0 and {MAX_SEED}", lambda x: 0 <= x <= MAX_SEED, ("seed",)),
)  # fmt: skip


def flag(name: str) -> str:
    """What a field is called on the command line."""
    return f"--{name.replace('_', '-')}"


def check_choice(name: str, value: object, known: Collection[str]) -> None:
    """Refuse what is not known.

    Raises:
        InputError: with the name of the option, and what there is.
    """
    if value not in known:
        raise InputError(f"{flag(name)} {value!r} is not one of {', '.join(known)}")


def check_values(options: FinetuneOptions) -> None:
    """Refuse values that do not exist, each by itself.

    Raises:
        InputError: with the name of the option and what it may be.
    """
    for name, known in CHOICES.items():
        check_choice(name, getattr(options, name), known)
    for words, holds, names in BOUNDS:
        for name in names:
            value = getattr(options, name)
            if value is not None and not holds(value):
                raise InputError(f"{flag(name)} must be {words}, not {value}")
    try:
        short_names(options.modules)
    except InputError as error:
        raise InputError(f"--target-modules {options.target_modules!r}: {error}") from error
