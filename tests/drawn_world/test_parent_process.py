"""Processes that end with the one that started them."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

from drawn_world import parent_process
from drawn_world.parent_process import end_with_parent

PARENT = """
import os, time
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
from drawn_world.parent_process import end_with_parent
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 60)
    time.sleep(60)
"""


def test_a_process_of_a_pool_ends_when_the_one_that_started_it_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(parent_process.__file__).parents[1])}
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as started:
        assert int(started.stdout.readline()) != started.pid
        os.kill(started.pid, signal.SIGKILL)
        started.communicate(timeout=30)  # the other one holds the pipe, too, and sleeps for 60 seconds


def test_a_process_that_no_other_of_this_program_started_goes_on():
    assert multiprocessing.parent_process() is None
    end_with_parent()
