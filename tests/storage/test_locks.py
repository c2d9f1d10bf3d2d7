"""Folder locks."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from mlx_aimv2.errors import InputError, OutputError
from mlx_aimv2.events import Progress, StepDone
from mlx_aimv2.finetuning.run import finetune
from mlx_aimv2.storage.locks import LOCK, locked

HOLD = """
import sys
from pathlib import Path
from mlx_aimv2.storage.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
REFUSED = r"another run is training in .*: wait until it ends, or name another --adapter-path"


@pytest.mark.parametrize(("kind", "resume"), [(Progress, False), (StepDone, True)])
def test_a_second_run_in_the_same_folder_is_refused(options, tmp_path, kind, resume):
    """While the first one still looks at its images, and while it trains."""
    refused = []

    def also(event):
        if isinstance(event, kind) and not refused:
            with pytest.raises(InputError, match=REFUSED):
                finetune(options(resume=resume))
            refused.append(event)

    assert finetune(options(epochs=1), also).trained.epochs == 1
    assert refused and not (tmp_path / "adapter" / LOCK).exists()
    assert finetune(options(epochs=1, resume=True)).trained.epochs == 1


def test_the_lock_of_a_run_that_was_killed_is_no_hindrance(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=REFUSED), locked(tmp_path):
            pass
        run.send_signal(signal.SIGKILL)
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_removed_meanwhile_is_not_held(tmp_path, monkeypatch):
    """The run that had it ends between the opening and the locking here."""
    flock, calls = fcntl.flock, []

    def late(descriptor, flags):
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / LOCK).unlink()
        flock(descriptor, flags)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        assert len(calls) == 2 and (tmp_path / LOCK).exists()


def test_a_file_system_without_locks_will_do(options, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    assert finetune(options(epochs=1)).trained.epochs == 1


def test_a_folder_that_is_gone(tmp_path):
    with (
        pytest.raises(OutputError, match="cannot be written: No such file or directory"),
        locked(tmp_path / "a"),
    ):
        pass
