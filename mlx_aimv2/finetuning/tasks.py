"""What can be trained for, as a table: its measures, its methods, and the options that it has no use for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from .methods import METHODS

if TYPE_CHECKING:
    from .options import FinetuneOptions

FROZEN, ADAPTED, TRAINED = "frozen", "adapted", "trained"
TOWER_STATES = (FROZEN, ADAPTED, TRAINED)


@dataclass(frozen=True)
class TaskRules:
    """What goes with one task.

    Attributes:
        metrics: what can say which epoch is best, and whether more of it is better; the first is the default.
        methods: the ways to fine-tune that it has.
        foreign: options that it has no use for.
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
METRICS = {name: more for task in TASKS.values() for name, more in task.metrics.items()}


def check_task(options: FinetuneOptions) -> None:
    """Refuse options that do not go with the task.

    Raises:
        InputError: with the name of the option, and what to do.
    """
    rules = TASKS[options.task]
    given = options.given()
    for name in rules.foreign:
        if name in given:
            raise InputError(f"--task {options.task} has no use for --{name.replace('_', '-')}: leave it out")
    if options.fine_tune_type not in rules.methods:
        raise InputError(
            f"--fine-tune-type {options.fine_tune_type!r} is not one of {', '.join(rules.methods)} for"
            f" --task {options.task}"
        )
    if options.best_metric not in rules.metrics:
        raise InputError(f"--metric {options.metric!r} is not one of {', '.join(rules.metrics)}")
    if options.task == "contrastive":
        _check_towers(options)
        if options.batch_size < 2:
            raise InputError("--batch-size 1: captions are told apart within a batch, so give at least 2")


def towers(options: FinetuneOptions) -> dict[str, str]:
    """What becomes of each tower: "frozen", "adapted" or "trained"."""
    usual = TRAINED if METHODS[options.fine_tune_type].full else ADAPTED
    return {"vision": options.vision_tower or usual, "text": options.text_tower or usual}


def _check_towers(options: FinetuneOptions) -> None:
    states, method = towers(options), options.fine_tune_type
    for tower, state in states.items():
        if state not in TOWER_STATES:
            raise InputError(f"--{tower}-tower {state!r} is not one of {', '.join(TOWER_STATES)}")
        if state == ADAPTED and METHODS[method].full:
            raise InputError(f"--{tower}-tower adapted is for lora and dora, not for {method}: say trained")
    if set(states.values()) == {FROZEN}:
        raise InputError("with both towers frozen nothing is trained: leave one of the two options out")
    if not METHODS[method].full and ADAPTED not in states.values():
        raise InputError(f"{method} has no tower to adapt: use --fine-tune-type full")
    if TRAINED in states.values() and options.dtype not in ("auto", "float32"):
        raise InputError(
            f"--dtype {options.dtype}: a tower that is trained changes by less than that can hold: leave it out"
        )
