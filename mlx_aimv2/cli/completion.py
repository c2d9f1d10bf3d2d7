"""Shell completion of option values: choices, and names of checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ..backend.device import DEVICES as DEVICES
from ..backend.device import DTYPES as DTYPES
from ..finetuning.task_rules import TASKS
from ..presets import DEMO_MODEL, PRESETS

Complete = Callable[[str], list[str]]

# Copies: completion must not import the modules with MLX that define these. A test compares them.
BACKGROUNDS = ("white", "black", "drop")
POOLINGS = ("auto", "mean", "max", "head", "tokens")
SCORES = ("softmax", "cosine")
Q_MODES = ("affine", "mxfp4", "nvfp4", "mxfp8")
Q_BITS, Q_GROUP_SIZES = ("2", "3", "4", "5", "6", "8"), ("16", "32", "64", "128")
RECIPES = ("mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6")
METRICS = tuple(dict.fromkeys(metric for task in TASKS.values() for metric in task.metrics))


def choices(values: Iterable[str]) -> Complete:
    """Complete with one of ``values``."""
    values = tuple(values)
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


def checkpoints(incomplete: str) -> list[str]:
    """Complete with short names, repositories and folders; the folder of a checkpoint gets no slash at its end."""
    names = [DEMO_MODEL, *(preset.name for preset in PRESETS)]
    if "/" in incomplete:
        names += [preset.repo for preset in PRESETS]
    return [name for name in names if name.startswith(incomplete)] + _folders(incomplete)


def _folders(incomplete: str) -> list[str]:
    """Folders whose path begins with ``incomplete``."""
    parent, slash, start = incomplete.rpartition("/")
    prefix = f"{parent}{slash}"
    try:
        inside = sorted(Path(prefix or ".").expanduser().iterdir())
        return [
            f"{prefix}{path.name}{'' if (path / 'config.json').is_file() else '/'}"
            for path in inside
            if path.name.startswith(start) and path.is_dir() and (start or not path.name.startswith("."))
        ]
    except (OSError, RuntimeError, ValueError):
        return []
