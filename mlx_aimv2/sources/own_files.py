"""What this program wrote into a folder, recognised by content: adapters, checkpoints, vectors, reports, a tour."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..storage.json_files import read_json

Content = Mapping[str, Any]
# A file of a folder that is ours as a whole -> whether its content says so.
MARKS: dict[str, Callable[[Content], bool]] = {
    "adapter_config.json": lambda data: "peft_type" in data,
    "task.json": lambda data: {"format", "base"} <= set(data),
    "splits.json": lambda data: {"train", "val", "files"} <= set(data),
    "manifest.json": lambda data: {"fingerprint", "shards"} <= set(data),
    "config.json": lambda data: bool({"model_type", "architectures", "architecture"} & set(data)),
}
WEIGHTS = (
    ".safetensors",
    ".safetensors.index.json",
    ".npz",
)  # endings of the files that make it a checkpoint
TOUR = {"contact-sheet.png", "labels.txt", "vectors.npz", "images"}
REPORT, ACCOUNT, PLOTS = (
    "evaluation.json",
    "data.json",
    frozenset({"confusion.png", "calibration.png", "curves.png"}),
)
MEASURES = {"skipped", "mistakes"}  # keys of every report


def own_files(folder: str, names: Set[str]) -> frozenset[str] | None:
    """The images in a folder that this program wrote among those of others; None where all of it is its own.

    Args:
        folder: the path.
        names: of everything in it.
    """
    if names >= TOUR:
        return None
    for mark, is_own in MARKS.items():
        if mark not in names or (mark == "config.json" and not any(name.endswith(WEIGHTS) for name in names)):
            continue
        if is_own(_content(folder, mark)):
            return None
    if REPORT in names and set(_content(folder, REPORT)) >= MEASURES:
        return None if names <= {REPORT, ACCOUNT} | PLOTS else PLOTS
    return frozenset()


def _content(folder: str, name: str) -> Content:
    try:
        return read_json(Path(folder, name))
    except ConfigError:
        return {}
