"""Unpacked copies of compressed archives."""

import re
import shutil

import mlx.core as mx
import pytest

from mlx_aimv2.checkpoints import lazy_copy
from mlx_aimv2.checkpoints.files import open_tensors, read_header
from mlx_aimv2.errors import OutputError


def test_without_room_to_unpack_it_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    mx.savez(str(path), a=mx.arange(60.0))
    usage = shutil.disk_usage(tmp_path)._replace(free=60)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(lazy_copy.shutil, "disk_usage", lambda folder: usage)
    message = (
        f"^{re.escape(str(tmp_path))} has 60 bytes free, and unpacking model.npz takes \\d+ \\w+: set TMPDIR"
    )
    with pytest.raises(OutputError, match=message):
        open_tensors(read_header((path,)))
    monkeypatch.setenv("TMPDIR", "/no/such/folder")
    with pytest.raises(OutputError, match=r"^/no/such/folder has 0 bytes free"):
        open_tensors(read_header((path,)))
