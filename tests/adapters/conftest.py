"""Fixtures for the tests of adapters."""

import shutil

import mlx.core as mx
import pytest

from mlx_aimv2.adapters.attach import AdapterConfig


@pytest.fixture
def pixels():
    """Two random images of 56 x 56."""
    return mx.random.normal((2, 56, 56, 3), key=mx.random.key(3))


@pytest.fixture(scope="session")
def written_adapter(with_adapter, tiny_vision, tmp_path_factory):
    """The folder of an adapter of q and v in both layers; tests must not change it."""
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    with_adapter(tiny_vision, folder, AdapterConfig(rank=4, target_modules=("q", "v")))
    return folder


@pytest.fixture
def adapter(written_adapter, tmp_path):
    """A copy of it that a test may change."""
    return shutil.copytree(written_adapter, tmp_path / "adapter")
