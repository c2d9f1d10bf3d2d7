"""A conversion that is killed, or runs out of disk: all of the checkpoint is there, or nothing is."""

import json
import subprocess
import sys

from mlx_aimv2 import convert, load
from mlx_aimv2.checkpoints.files import read_header
from mlx_aimv2.checkpoints.identity import checkpoint_hash

# One process imports the package; each conversion runs in a fork of it, and dies of a signal or of a limit.
RUN = """
import json, os, random, resource, signal, sys
from mlx_aimv2 import Aimv2Error, ConvertOptions, Scheme, convert

source, target = sys.argv[1:3]
jobs = json.loads(sys.argv[3])
convert.__module__  # imports it before the forks


def child(job):
    events, rng = [], random.Random(job.get("event", 0))

    def kill_soon(event):
        events.append(event)
        if len(events) == job.get("event"):
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 2e-3))

    if "limit" in job:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
    options = ConvertOptions(scheme=Scheme(32, 4), max_shard_bytes=20_000)
    try:
        convert(source, target, options=options, on_event=kill_soon)
    except Aimv2Error as error:
        print(error, flush=True)
        os._exit(1)
    os._exit(0)


for number, job in enumerate(jobs):
    process = os.fork()
    if not process:
        child(job)
    status = os.waitpid(process, 0)[1]
    print("ended", os.waitstatus_to_exitcode(status), flush=True)
    if os.path.exists(target):
        os.rename(target, f"{target}-{number}")
"""


def run(source, target, jobs):
    command = [sys.executable, "-c", RUN, source, target, json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_kill_at_any_moment_leaves_all_or_nothing_and_no_stumbling_block(tiny_pair, tmp_path):
    target = tmp_path / "out"
    lines = run(tiny_pair, target, [{"event": event} for event in range(1, 100, 5)])
    assert lines.count("ended -14") > 10, "few were killed in the middle: the moments show nothing"
    for folder in tmp_path.glob("out-*"):
        load(folder, on_event=lambda event: None)  # strict: every tensor is there
    complete = len(list(tmp_path.glob("out-*")))
    convert(tiny_pair, target)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert checkpoint_hash(read_header((target / "model.safetensors",)))
    assert len(list(tmp_path.iterdir())) == complete + 1


def test_a_file_that_cannot_grow_is_one_clear_line_and_leaves_nothing(tiny_pair, tmp_path):
    limits = [1, 9_000, 60_000]  # the first byte, the first file, a later file
    lines = run(tiny_pair, tmp_path / "out", [{"limit": limit} for limit in limits])
    assert len(lines) == 6
    for message, end in zip(lines[::2], lines[1::2], strict=True):
        assert "cannot be written: File too large" in message and end == "ended 1"
    assert list(tmp_path.iterdir()) == []
