"""Checksums of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mlx_aimv2.vectors import checksums


def test_a_file_is_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "CHUNK", 3)
    path = tmp_path / "a"
    path.write_bytes(b"1234567")
    assert checksums.sha256_of(path) == hashlib.sha256(b"1234567").hexdigest()


def test_a_missing_file_gives_the_systems_reason(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        checksums.sha256_of(tmp_path / "a")
