"""The table of tasks, classify and contrastive: their metrics and methods, options they do not take, tower states."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from ..errors import InputError
from ..options.fields import flag
from .methods import METHODS

FROZEN, ADAPTED, TRAINED = "frozen", "adapted", "trained"
TOWER_STATES = (FROZEN, ADAPTED, TRAINED)


@dataclass(frozen=True)
class TaskRules:
    """What goes with a task.

    Attributes:
        metrics: those that can say which epoch is the best, and whether more is better; the first is the default.
        methods: its fine-tuning methods.
        foreign: options that it does not take.
    """

    metrics: Mapping[str, bool]
    methods: tuple[str, ...]
    foreign: tuple[str, ...]


TASKS = {
    "classify": TaskRules(
        metrics={"top1": True, "macro_f1": True, "loss": False, "map": True, "exact_match": True},
        methods=tuple(METHODS),
        foreign=("vision_tower", "text_tower", "caption_column"),
    ),
    "contrastive": TaskRules(
        metrics={"recall@1": True, "recall@5": True, "recall@10": True, "loss": False},
        methods=tuple(name for name, method in METHODS.items() if not method.frozen),
        foreign=(
            "class_weights", "pooling", "batch_norm", "neighbours", "sweep", "mixup", "cutmix",
            "label_smoothing", "label_column",
        ),
    ),
}  # fmt: skip
ONE_LABEL, SEVERAL_LABELS = ("top1",), ("map", "exact_match")  # metrics of classify that only such data has


def check_task(task: str, method: str, metric: str, changed: Set[str]) -> None:
    """Check that options go with a task; ``changed`` names those that differ from their defaults.

    Raises:
        InputError: with the name of the option, and what to do.
    """
    rules = TASKS[task]
    for name in rules.foreign:
        if name in changed:
            raise InputError(f"--task {task} has no use for {flag(name)}: leave it out")
    if method not in rules.methods:
        raise InputError(
            f"--fine-tune-type {method!r} is not one of {', '.join(rules.methods)} for --task {task}"
        )
    if metric not in rules.metrics:
        raise InputError(f"--metric {metric!r} is not one of {', '.join(rules.metrics)}")


def check_towers(towers: Mapping[str, str], method: str, dtype: str) -> None:
    """Check that the states of the towers go with a method and a dtype.

    Raises:
        InputError: with the name of the option, and what to do.
    """
    full = METHODS[method].full
    for tower, state in towers.items():
        if state == ADAPTED and full:
            raise InputError(f"--{tower}-tower adapted is for lora and dora, not for {method}: say trained")
    if set(towers.values()) == {FROZEN}:
        raise InputError("with both towers frozen nothing is trained: leave one of the two options out")
    if not full and ADAPTED not in towers.values():
        raise InputError(f"{method} has no tower to adapt: use --fine-tune-type full")
    if TRAINED in towers.values() and dtype not in ("auto", "float32"):
        raise InputError(
            f"--dtype {dtype}: a tower that is trained changes by less than that can hold: leave it out"
        )
