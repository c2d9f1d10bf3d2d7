"""What the tests of fine-tuning share: coloured images, and bases to train on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}


def colours(root: Path, each: int = 6, edge: int = 40) -> Path:
    """A folder per colour with noisy images of it, which any method can learn to tell apart."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(each):
            noisy = np.array(colour) + rng.normal(0, 45, (edge, edge, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(root / name / f"{number:02}.png")
    return root


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours with six images each: 15 to train on and 3 to validate with; tests must not change it."""
    return colours(tmp_path_factory.mktemp("colours") / "data")


@pytest.fixture
def own_data(data: Path, tmp_path: Path) -> Path:
    """A copy of the data that a test may change."""
    return Path(shutil.copytree(data, tmp_path / "data"))


@pytest.fixture(scope="session")
def packed(tiny_vision: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Gives the small encoder with weights packed to so many bits."""
    from mlx_aimv2 import convert
    from mlx_aimv2.conversion.options import ConvertOptions
    from mlx_aimv2.quantization.scheme import Scheme

    root = tmp_path_factory.mktemp("packed")

    def make(bits: int) -> Path:
        folder = root / f"q{bits}"
        if not folder.exists():
            convert(tiny_vision, folder, options=ConvertOptions(scheme=Scheme(32, bits)))
        return folder

    return make


@pytest.fixture
def quick_runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that neither wait for the disk nor draw, which takes longer than training.

    The marker `charts` lets a test have real charts.
    """
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    if request.node.get_closest_marker("charts") is None:
        monkeypatch.setattr("mlx_aimv2.evaluation.charts.draw_png", lambda *_, **more: b"")


@pytest.fixture
def options(data: Path, tiny_vision: Path, tmp_path: Path, quick_runs: None) -> Any:
    """Gives options for a short run on the coloured images."""
    from mlx_aimv2.finetuning.methods import METHODS
    from mlx_aimv2.finetuning.options import FinetuneOptions

    def make(**given: Any) -> FinetuneOptions:
        defaults = {
            "data": str(data),
            "model": str(tiny_vision),
            "adapter_path": str(tmp_path / "adapter"),
            "fine_tune_type": "lora",
            "epochs": 2,
            "batch_size": 4,
            "rank": 2,
            "learning_rate": 2e-3,
        }
        method = METHODS.get(given.get("fine_tune_type", "lora"))
        usual = {name: x for name, x in defaults.items() if method is None or name not in method.foreign}
        return FinetuneOptions(**{**usual, **given})

    return make
