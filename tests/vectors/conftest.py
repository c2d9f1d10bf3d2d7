"""The tests of storage wait for the disk; the tests of vectors do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_aimv2.storage import atomic, swap


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    def sync(path: Path) -> None:
        return

    for module in (atomic, swap):
        monkeypatch.setattr(module, "sync", sync)
