"""Runs that are killed at any moment: the run that goes on ends with the result of a run that nobody killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlx_aimv2.vectors.manifest import FAILURES, MANIFEST
from mlx_aimv2.vectors.reading import read_vectors

COUNT = 60
RUN = """
import sys
from pathlib import Path
import numpy as np
from mlx_aimv2.errors import BrokenImageError
from mlx_aimv2.events import ignore
from mlx_aimv2.vectors import shard_folder
from mlx_aimv2.vectors.options import WriterOptions
from mlx_aimv2.vectors.writer import Rank, open_writer

output, images, number, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
shard_folder.SHARD_ROWS = 3
names = sorted(str(path) for path in images.iterdir())
writer = open_writer(output, {"name": "tiny"}, WriterOptions(), ignore, Rank(number, size))
for k in writer.remaining(names):
    content = Path(names[k]).read_bytes()
    if content == b"broken":
        writer.fail(names[k], BrokenImageError("it is cut off"))
    else:
        writer.add(names[k], np.full(64, float(content), np.float32))
    print(k, flush=True)
writer.close()
print("done", flush=True)
"""


@pytest.fixture
def images(tmp_path):
    """Files that stand for images; every seventh cannot be embedded."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"{number:03d}.jpg").write_text("broken" if number % 7 == 3 else f"{number}")
    return folder


def started(output: Path, images: Path, rank: int = 0, size: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RUN, f"{output}/", str(images), str(rank), str(size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(output: Path, images: Path, rank: int = 0, size: int = 1) -> None:
    with started(output, images, rank, size) as process:
        assert process.communicate()[0].endswith("done\n")
    assert process.returncode == 0


def failures(output: Path) -> list[str]:
    """The images in `errors.jsonl`; every line is whole, and no image is there twice."""
    names = [json.loads(line)["path"] for line in (output / FAILURES).read_text().splitlines()]
    assert len(names) == len(set(names))
    return sorted(names)


def assert_the_same(output: Path, whole: Path) -> None:
    found, expected = read_vectors(output), read_vectors(whole)
    assert found.paths == expected.paths and found.fingerprint == expected.fingerprint
    np.testing.assert_array_equal(found.embeddings, expected.embeddings)
    assert failures(output) == failures(whole)


def check_what_is_left(output: Path) -> None:
    """A killed run leaves a folder that can be read, in the order of the input."""
    if (output / MANIFEST).exists() and json.loads((output / MANIFEST).read_text())["rows"]:
        found = read_vectors(output)
        assert list(found.paths) == sorted(found.paths)
        assert [int(Path(path).stem) for path in found.paths] == found.embeddings[:, 0].tolist()
    if (output / FAILURES).exists():
        failures(output)


def test_a_killed_run_goes_on_and_ends_as_if_nobody_had_killed_it(tmp_path, images):
    output = tmp_path / "v"
    for lines in (1, 7, 13, 5):  # the shards have three rows
        with started(output, images) as process:
            for _ in range(lines):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        check_what_is_left(output)
    finished(output, images)
    finished(tmp_path / "whole", images)
    assert_the_same(output, tmp_path / "whole")
    assert len(read_vectors(output).paths) == COUNT - len(failures(output)) == 51
    finished(output, images)  # there is nothing left to do
    assert_the_same(output, tmp_path / "whole")


def test_ranks_that_are_killed_give_the_rows_of_one_process(tmp_path, images):
    output = tmp_path / "v"
    with started(output, images, 0, 2) as one, started(output, images, 1, 2) as other:
        for process, lines in ((one, 8), (other, 11)):
            for _ in range(lines):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
    with started(output, images, 0, 2) as one, started(output, images, 1, 2) as other:
        assert one.communicate()[0].endswith("done\n") and other.communicate()[0].endswith("done\n")
    finished(tmp_path / "whole", images)
    assert_the_same(output, tmp_path / "whole")
    assert json.loads((output / MANIFEST).read_text())["rows"] == 51
    assert not list(output.glob(f"*/{MANIFEST}")) and not list(output.glob(f"*/{FAILURES}"))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_thirty_kills_at_random_moments(tmp_path, images, size):
    chance, output = random.Random(os.environ.get("PYTEST_RANDOMLY_SEED", "0")), tmp_path / "v"
    for number in range(COUNT, 3000):
        (images / f"{number:04d}.jpg").write_text("broken" if number % 97 == 3 else f"{number}")
    kills = 0
    while kills < 30:
        with contextlib.ExitStack() as stack:
            ranks = [stack.enter_context(started(output, images, rank, size)) for rank in range(size)]
            for process in ranks:
                process.stdout.readline()
            wait = chance.uniform(0, 0.05)
            for process in ranks:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(wait)
                process.kill()
                kills += 1
        check_what_is_left(output)
    finished(output, images)
    finished(tmp_path / "whole", images)
    assert_the_same(output, tmp_path / "whole")
