"""Tiny models, loaded anew for every test, and noise for images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_world.untrained import TINY, write_checkpoint

from mlx_aimv2 import Aimv2Model, Aimv2VisionModel, load
from mlx_aimv2.processing.processor import Processor

WIDE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2}


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


@pytest.fixture(scope="session")
def wide_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair whose widths every group size divides, ten layers deep."""
    vision = replace(TINY.vision_config, num_hidden_layers=10, **WIDE)
    config = replace(TINY, vision_config=vision, text_config=replace(TINY.text_config, **WIDE))
    return write_checkpoint(tmp_path_factory.mktemp("wide") / "pair", config, "transformers")
