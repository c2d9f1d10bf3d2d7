"""What a folder of `finetune` was trained for, and on what, as the verbs have to know before anything is loaded."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..errors import ConfigError, InputError
from ..storage.json_files import read_json


def check_head_is_named(model: str, adapter_path: Path | None, zero_shot: str = "") -> None:
    """Say where the head of a fused checkpoint is, to whom would ask it for zero-shot labels.

    Args:
        model: the checkpoint.
        adapter_path: what was named beside it.
        zero_shot: the options that ask a pair for zero-shot labels all the same, where there are such.

    Raises:
        InputError: the checkpoint has a head beside it, and no adapter was named.
    """
    if adapter_path is None and (Path(model).expanduser() / "head.safetensors").is_file():
        otherwise = f", or {zero_shot} for zero-shot labels of a pair" if zero_shot else ""
        head = f"--adapter-path {shlex.quote(model)}"
        raise InputError(f"{model} has a trained head beside it: add {head}{otherwise}")


def is_trained_pair(adapter_path: Path | None) -> bool:
    """Whether an image-text pair was trained there; what else is wrong with a folder is found when it is loaded."""
    if adapter_path is None:
        return False
    try:
        return bool(read_json(adapter_path.expanduser() / "task.json").get("task") == "contrastive")
    except ConfigError:
        return False


def has_head(adapter_path: Path | None) -> bool:
    """Whether a folder holds a trained head, which has labels of its own; PEFT's adapters have none."""
    if adapter_path is None or is_trained_pair(adapter_path):
        return False
    return (adapter_path.expanduser() / "task.json").exists()
