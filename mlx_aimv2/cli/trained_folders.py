"""Folders that `finetune` wrote: do they hold a head or an image-text pair? Answered before a model is loaded."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..errors import ConfigError, InputError
from ..storage.json_files import read_json


def check_head_is_named(model: str, adapter_path: Path | None, zero_shot: str = "") -> None:
    """Refuse a fused checkpoint with a trained head in its folder if no --adapter-path names this head.

    Args:
        model: the checkpoint.
        adapter_path: the value of --adapter-path.
        zero_shot: options that give zero-shot labels of the checkpoint instead; empty for none.

    Raises:
        InputError: the checkpoint has a head, and there is no adapter.
    """
    if adapter_path is None and (Path(model).expanduser() / "head.safetensors").is_file():
        otherwise = f", or {zero_shot} for zero-shot labels of a pair" if zero_shot else ""
        head = f"--adapter-path {shlex.quote(model)}"
        raise InputError(f"{model} has a trained head beside it: add {head}{otherwise}")


def is_trained_pair(adapter_path: Path | None) -> bool:
    """Whether the folder holds a trained image-text pair; damaged folders are refused later, by loading."""
    if adapter_path is None:
        return False
    try:
        return bool(read_json(adapter_path.expanduser() / "task.json").get("task") == "contrastive")
    except ConfigError:
        return False


def has_head(adapter_path: Path | None) -> bool:
    """Whether the folder holds a trained head, which has labels; adapters of PEFT have none."""
    if adapter_path is None or is_trained_pair(adapter_path):
        return False
    return (adapter_path.expanduser() / "task.json").exists()
