"""What a wheel and a source archive hold, built as `pip install` builds them."""

import json
import subprocess
import tarfile
import venv
import zipfile
from pathlib import Path

import hatchling.build
import pytest

from mlx_aimv2.demo.images import sample_images

ROOT = Path(__file__).parent.parent
LARGEST = 8_000_000  # bytes that the checkpoint may add, and that the whole wheel may have
NEEDED = {
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "README.md",
    "LICENSE",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
}
NO_NETWORK = """
import socket
def refuse(*_):
    raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = refuse
"""


@pytest.fixture
def backend(monkeypatch):
    """The build backend, working on this tree."""
    monkeypatch.chdir(ROOT)
    return hatchling.build


def test_the_wheel_holds_the_checkpoint(backend, tmp_path):
    built = tmp_path / backend.build_wheel(str(tmp_path))
    with zipfile.ZipFile(built) as wheel:
        inside = "mlx_aimv2/demo/checkpoint/"
        entries = {
            one.filename.removeprefix(inside): one for one in wheel.infolist() if inside in one.filename
        }
        names = set(wheel.namelist())
    assert set(entries) >= NEEDED
    images = {f"mlx_aimv2/demo/images/{sample.path.name}" for sample in sample_images()}
    assert len(images) == 12 and {"mlx_aimv2/demo/captions.json", *images} <= names
    assert sum(one.compress_size for one in entries.values()) <= LARGEST
    assert built.stat().st_size <= LARGEST


def test_the_source_archive_holds_the_checkpoint(backend, tmp_path):
    with tarfile.open(tmp_path / backend.build_sdist(str(tmp_path))) as archive:
        inside = "/mlx_aimv2/demo/checkpoint/"
        names = {name.rpartition("/")[2] for name in archive.getnames() if inside in name}
    assert names >= NEEDED


@pytest.mark.slow
def test_the_installed_wheel_shows_itself_without_a_network(backend, tmp_path):
    """In an environment of its own, which has no way out once everything is installed."""
    wheel = tmp_path / backend.build_wheel(str(tmp_path))
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"{wheel}[cpu]"], check=True)
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (packages / "no_network.py").write_text(NO_NETWORK)
    (packages / "no_network.pth").write_text("import no_network\n")
    asked = subprocess.run(
        [python, "-c", "import socket; socket.getaddrinfo('pypi.org', 443)"], capture_output=True, text=True
    )
    assert "the network was used" in asked.stderr
    (tmp_path / "bin").mkdir()  # no compiler there
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    command = [str(tmp_path / "venv" / "bin" / "mlx-aimv2"), "demo", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["images"]) == 12
    assert (tmp_path / result["contact_sheet"]).exists()
    print(f"wheel {wheel.stat().st_size:,} bytes; {sum(step['seconds'] for step in result['steps']):.1f} s")
