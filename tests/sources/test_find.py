"""Everything that a user may name: what holds for all kinds of sources."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mlx_aimv2.errors import ImageError
from mlx_aimv2.processing.decode import decode_image
from mlx_aimv2.sources.containers import Container
from mlx_aimv2.sources.find import find_sources


def test_a_file_that_a_library_fails_at_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("of a library")

    monkeypatch.setattr(Container, "list_images", fail)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.tar").write_bytes(b"")
    found = find_sources([str(tmp_path)])
    assert found.names == [f"{tmp_path}/a.png", f"{tmp_path}/b.tar"]
    with pytest.raises(ImageError, match=r"b\.tar: damaged \(RuntimeError: of a library\)"):
        decode_image(found.images[1])
