"""Models that are loaded once; a test may change their weights, which are restored after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_aimv2 import load


@pytest.fixture(scope="session")
def models(tiny_pair: Path, tiny_vision: Path, tiny_native: Path) -> dict[str, tuple[Any, Any]]:
    return {"pair": load(tiny_pair), "vision": load(tiny_vision), "native": load(tiny_native)}


def restored(loaded: tuple[Any, Any]) -> Iterator[tuple[Any, Any]]:
    from mlx.utils import tree_map

    weights = tree_map(lambda weight: weight, loaded[0].parameters())
    yield loaded
    loaded[0].update(weights)


@pytest.fixture
def pair(models: dict[str, tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    yield from restored(models["pair"])


@pytest.fixture
def vision(models: dict[str, tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    yield from restored(models["vision"])


@pytest.fixture
def native(models: dict[str, tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    yield from restored(models["native"])
