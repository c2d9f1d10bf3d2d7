"""What a shell completes the values of options with: their choices, and names of checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ..backend.device import DEVICES as DEVICES
from ..backend.device import DTYPES as DTYPES
from ..finetuning.methods import METHODS
from ..finetuning.tasks import TASKS, TOWER_STATES
from ..presets import DEMO_MODEL, PRESETS
from ..training.options import OPTIMIZERS
from ..training.schedule import SCHEDULES

Complete = Callable[[str], list[str]]

# As MLX need not be loaded to complete a word, what its modules know is written here again; a test compares.
DECODING = ("fast", "exact")
BACKGROUNDS = ("white", "black", "drop")
POOLINGS = ("auto", "mean", "max", "head", "tokens")
SCORES = ("softmax", "cosine")
Q_MODES = ("affine", "mxfp4", "nvfp4", "mxfp8")
Q_BITS, Q_GROUP_SIZES = ("2", "3", "4", "5", "6", "8"), ("16", "32", "64", "128")
RECIPES = ("mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6")
WEIGHT_FORMATS = ("safetensors", "npz")
LAYOUTS = ("transformers", "apple", "apple-mlx", "timm")
OF_FINETUNE = {  # by the name of an option
    "dtype": ("auto", *DTYPES),
    "task": TASKS,
    "fine_tune_type": METHODS,
    "pooling": ("mean", "head"),
    "class_weights": ("none", "balanced"),
    "vision_tower": TOWER_STATES,
    "text_tower": TOWER_STATES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "metric": tuple(dict.fromkeys(metric for task in TASKS.values() for metric in task.metrics)),
}


def choices(words: Iterable[str]) -> Complete:
    """Complete with one of some words."""
    every = tuple(words)

    def complete(incomplete: str) -> list[str]:
        return [word for word in every if word.startswith(incomplete)]

    return complete


def checkpoints(incomplete: str) -> list[str]:
    """Complete with short names, repositories, and folders; a checkpoint's has no slash behind it."""
    names = [DEMO_MODEL, *(preset.name for preset in PRESETS)]
    if "/" in incomplete:
        names += [preset.repo for preset in PRESETS]
    return [name for name in names if name.startswith(incomplete)] + _folders(incomplete)


def of_finetune(name: str) -> Complete | None:
    """What an option of `finetune` is completed with, if it has choices."""
    if name == "model":
        return checkpoints
    return choices(OF_FINETUNE[name]) if name in OF_FINETUNE else None


def _folders(incomplete: str) -> list[str]:
    """Folders that a path could go on with, written as it begins."""
    begun, _, start = incomplete.rpartition("/")
    shown = f"{begun}/" if "/" in incomplete else ""
    try:
        inside = sorted(Path(shown or ".").expanduser().iterdir())
        return [
            f"{shown}{path.name}{'' if (path / 'config.json').is_file() else '/'}"
            for path in inside
            if path.name.startswith(start) and path.is_dir() and (start or not path.name.startswith("."))
        ]
    except (OSError, RuntimeError, ValueError):
        return []
