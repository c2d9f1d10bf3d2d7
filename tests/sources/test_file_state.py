"""The state of files with many images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlx_aimv2.errors import ChangedFileError, ImageError
from mlx_aimv2.sources.file_state import check_unchanged, state_of


def test_the_state_is_the_same_by_path_and_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"123")
    with path.open("rb") as file:
        assert state_of(str(path)) == state_of(file.fileno()) == (3, path.stat().st_mtime_ns)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"123")
    before = state_of(str(path))
    check_unchanged(str(path), before, "archive")
    os.utime(path, ns=(0, before.mtime_ns + 1))
    with pytest.raises(
        ChangedFileError, match="the archive has changed since its images were listed: run this again"
    ):
        check_unchanged(str(path), before, "archive")


def test_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "a.tar"
    os.mkfifo(pipe)
    with pytest.raises(ImageError, match="not a regular file"):
        state_of(str(pipe))


def test_a_missing_file_gives_the_systems_reason(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        state_of(str(tmp_path / "a.tar"))
