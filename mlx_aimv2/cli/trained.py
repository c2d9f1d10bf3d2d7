"""What a folder of `finetune` was trained for, as far as the verbs have to know before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path


def is_trained_pair(adapter_path: Path | None) -> bool:
    """Whether an image-text pair was trained there; what else is wrong with a folder is found when it is loaded."""
    if adapter_path is None:
        return False
    try:
        data = json.loads((adapter_path.expanduser() / "task.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and data.get("task") == "contrastive"
