"""The sides of PyTorch: transformers, timm and PEFT. Only functions import these, because they may be missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from suite import Setup


def device() -> str:
    """Where PyTorch computes."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def finished(run: Callable[[], object]) -> Callable[[], object]:
    """``run``, which returns when its work is done."""
    import torch

    def wait() -> None:
        run()
        if device() == "cuda":
            torch.cuda.synchronize()

    return wait


def load_model(setup: Setup, name: str, dtype: str = "float32") -> Any:
    """The vision model of transformers from a checkpoint in the folder for data, attention as shipped."""
    import torch
    from transformers import Aimv2VisionModel

    model = Aimv2VisionModel.from_pretrained(setup.folder / name, dtype=getattr(torch, dtype))
    return model.to(device()).eval()


def noise(batch: int, height: int, width: int, dtype: str = "float32") -> Any:
    """Random pixels (B, 3, H, W)."""
    import torch

    return torch.randn(batch, 3, height, width, device=device()).to(getattr(torch, dtype))
