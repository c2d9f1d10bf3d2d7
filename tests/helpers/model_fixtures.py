"""Tiny models, loaded anew for every test, and noise for images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlx_aimv2 import Aimv2Model, Aimv2VisionModel, load
from mlx_aimv2.processing.processor import Processor


@pytest.fixture
def pair(tiny_pair: Path) -> tuple[Aimv2Model, Processor]:
    return load(tiny_pair)


@pytest.fixture
def vision(tiny_vision: Path) -> tuple[Aimv2VisionModel, Processor]:
    return load(tiny_vision)


@pytest.fixture
def native(tiny_native: Path) -> tuple[Aimv2VisionModel, Processor]:
    return load(tiny_native)


@pytest.fixture
def draw() -> Callable[..., np.ndarray]:
    """A function for noise, (height, width, 3) uint8, the same for the same seed."""

    def noise(seed: int = 0, height: int = 60, width: int = 72) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return noise
