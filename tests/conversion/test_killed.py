"""A conversion that is killed, or runs out of disk: all of the checkpoint is there, or nothing is."""

import random
import signal
import subprocess
import sys
import time

import pytest

from mlx_aimv2 import convert, load
from mlx_aimv2.checkpoints.files import read_header
from mlx_aimv2.checkpoints.identity import checkpoint_hash

TENSOR_S = 0.004  # the pair has some eighty tensors: a third of a second to be killed in
RUN = """
import sys, time, resource
limit = int(sys.argv[3])
from mlx_aimv2.conversion.convert import convert
from mlx_aimv2.conversion.options import ConvertOptions
from mlx_aimv2.quantization.scheme import Scheme
from mlx_aimv2.errors import Aimv2Error
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print("begin", flush=True)
try:
    convert(sys.argv[1], sys.argv[2], options=ConvertOptions(scheme=Scheme(32, 4), max_shard_bytes=20_000),
            on_event=lambda event: time.sleep(float(sys.argv[4])))
except Aimv2Error as error:
    sys.exit(str(error))
"""


def start(source, target, limit=0):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, source, target, str(limit), str(TENSOR_S)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_kill_at_any_moment_leaves_all_or_nothing_and_no_stumbling_block(tiny_pair, tmp_path):
    rng, target, leftovers, finished = random.Random(7), tmp_path / "out", 0, 0
    for moment in range(20):
        run = start(tiny_pair, target)
        assert run.stdout.readline() == "begin\n"
        time.sleep(rng.uniform(0, 0.6))
        run.send_signal(signal.SIGKILL)
        run.communicate(timeout=60)
        leftovers += any(path.name.endswith(".partial") for path in tmp_path.iterdir())
        if target.exists():
            finished += 1
            load(target, on_event=lambda event: None)  # strict: every tensor is there
            target.rename(tmp_path / f"complete-{moment}")
    assert leftovers, "none was killed in the middle: the moments show nothing"
    convert(tiny_pair, target)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert checkpoint_hash(read_header((target / "model.safetensors",)))
    assert len(list(tmp_path.iterdir())) == finished + 1


@pytest.mark.parametrize("limit", [1, 9_000, 60_000], ids=["first-byte", "first-file", "later-file"])
def test_a_file_that_cannot_grow_is_one_clear_line_and_leaves_nothing(tiny_pair, tmp_path, limit):
    run = start(tiny_pair, tmp_path / "out", limit)
    _, error = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "cannot be written: File too large" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
