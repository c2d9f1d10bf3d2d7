"""What a wheel and a source archive hold, built as `pip install` builds them."""

import tarfile
import zipfile
from pathlib import Path

import hatchling.build
import pytest

ROOT = Path(__file__).parent.parent
LARGEST = 8_000_000  # bytes that the checkpoint may add
NEEDED = {
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "README.md",
    "LICENSE",
    "vocab.json",
}


@pytest.fixture
def backend(monkeypatch):
    """The build backend, working on this tree."""
    monkeypatch.chdir(ROOT)
    return hatchling.build


def test_the_wheel_holds_the_checkpoint(backend, tmp_path):
    with zipfile.ZipFile(tmp_path / backend.build_wheel(str(tmp_path))) as wheel:
        inside = "mlx_aimv2/demo/checkpoint/"
        entries = {
            one.filename.removeprefix(inside): one for one in wheel.infolist() if inside in one.filename
        }
    assert set(entries) >= NEEDED
    assert sum(one.compress_size for one in entries.values()) <= LARGEST


def test_the_source_archive_holds_the_checkpoint(backend, tmp_path):
    with tarfile.open(tmp_path / backend.build_sdist(str(tmp_path))) as archive:
        inside = "/mlx_aimv2/demo/checkpoint/"
        names = {name.rpartition("/")[2] for name in archive.getnames() if inside in name}
    assert names >= NEEDED
