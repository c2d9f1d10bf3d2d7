"""Rows of images with labels or captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlx_aimv2.datasets.labelled import read_dataset
from mlx_aimv2.errors import InputError


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    for name in ("nowhere", "nowhere.csv", "x" * 5000, "nul\0"):
        with pytest.raises(InputError, match=r"name a folder of images, or a \.csv or \.jsonl file"):
            read_dataset(tmp_path / name)
