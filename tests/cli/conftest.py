"""The command line as its users run it: another process, its output piped."""

import os
import subprocess
import sys

import pytest
from PIL import Image

from mlx_aimv2.demo.untrained import write_checkpoint


def run_cli(*arguments, stdin=None, **environment):
    """Run `python -m mlx_aimv2`; the result has `returncode`, `stdout` and `stderr` as text."""
    return subprocess.run(
        [sys.executable, "-m", "mlx_aimv2", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", "MLX_AIMV2_DEVICE": "cpu", **environment},
    )


@pytest.fixture(scope="session")
def cli():
    return run_cli


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """A tiny image-text pair in Apple's layout."""
    return write_checkpoint(tmp_path_factory.mktemp("cli") / "pair")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Three pictures of different sizes."""
    folder = tmp_path_factory.mktemp("photos")
    for number, size in enumerate([(90, 60), (60, 90), (200, 80)]):
        picture = Image.effect_noise(size, 60 + 20 * number).convert("RGB")
        picture.save(folder / f"{number}.png")
    return folder
