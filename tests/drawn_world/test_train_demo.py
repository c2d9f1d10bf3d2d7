"""The script that trains the checkpoint `demo`: interrupted, killed, resumed, with few images."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from drawn_world import train_demo

from mlx_aimv2.checkpoints.bundled import bundled_folder
from mlx_aimv2.storage.locks import locked

ROOT = Path(__file__).parents[2]
ARGUMENTS = ["--work", "work", "--images", "7000"]
FEW = ["--work", "work", "--images", "70"]
COMMAND = [sys.executable, str(ROOT / "examples" / "drawn_world" / "train_demo.py"), *ARGUMENTS]
ENVIRONMENT = {**os.environ, "MLX_AIMV2_DEVICE": "cpu", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The folder of work, which does not exist."""
    monkeypatch.chdir(tmp_path)
    return Path("work")


@contextlib.contextmanager
def script(folder, **how):
    """The script, begun; when the test ends, however that is, neither it nor a process of its own is left."""
    started = subprocess.Popen(COMMAND, cwd=folder, env=ENVIRONMENT, start_new_session=True, text=True, **how)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.communicate()


def kill_after(logs, line, folder):
    """Start the script and kill it, and no process that it has started, as soon as each log holds a line."""
    with script(folder, stdout=subprocess.PIPE) as started:
        while not all(log.exists() and line in log.read_text() for log in logs):
            with contextlib.suppress(subprocess.TimeoutExpired):
                pytest.fail(f"it ended with status {started.wait(timeout=0.1)} before {line} was logged")
        os.kill(started.pid, signal.SIGKILL)
        started.communicate(timeout=60)  # what it has started holds the pipe, too, and ends by itself


def steps_of(log):
    """The numbers of the steps in a log."""
    return [json.loads(line)["step"] for line in log.read_text().splitlines() if '"loss"' in line]


@pytest.mark.slow
def test_a_killed_training_goes_on_to_a_checkpoint_like_the_one_in_the_package(tmp_path):
    """Killed in `shapes` behind a saved state, and in both rounds of names, in processes of their own."""
    work = tmp_path / "work"
    shapes, *names = (
        work / name / "metrics.jsonl" for name in ("shapes", *(f"names-{k}" for k in range(1, 5)))
    )
    first, second = names[:2], names[2:]
    kill_after([shapes], '"step": 55', tmp_path)  # a state was saved at step 50
    for number, logs in enumerate((first, second)):
        kill_after(logs, '"step": 2', tmp_path)
        assert len(list(work.glob("names-*-checkpoint"))) == 2 * number

    done = subprocess.run(COMMAND, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sorted(set(steps_of(shapes))) == list(range(1, 109))
    for logs, steps in ((first, 48), (second, 24)):
        assert [sorted(set(steps_of(log))) for log in logs] == [list(range(1, steps + 1))] * 2
    for learned in (("names-1-checkpoint", "names-2-checkpoint", "mean-1"),
                    ("names-3-checkpoint", "names-4-checkpoint", "mean-2")):  # fmt: skip
        one, other, mean = (
            mx.load(str(work / name / "model.safetensors"))["vision_model.head.k_proj.weight"]
            for name in learned
        )
        assert mx.abs(one - other).max() > 1e-5 and mx.allclose((one + other) / 2, mean, atol=1e-6)
    made, shipped = work / "demo", bundled_folder()
    for name in (
        "config.json",
        "vocab.json",
        "merges.txt",
        "preprocessor_config.json",
        "tokenizer_config.json",
    ):
        assert (made / name).read_bytes() == (shipped / name).read_bytes()


def test_other_arguments_need_another_folder(work):
    work.mkdir()
    (work / "arguments.json").write_text('{"images": 7}')
    with pytest.raises(SystemExit) as ended:
        train_demo.main(FEW)
    assert ended.value.code == (
        "work was started with other arguments, see work/arguments.json: name another folder with --work"
    )


def test_an_interruption_is_one_line(work, monkeypatch, capsys):
    def interrupt(event):
        assert (event.stage, event.done) == ("drawing", 0)
        raise KeyboardInterrupt

    monkeypatch.setattr(train_demo, "show_drawing", interrupt)
    with pytest.raises(SystemExit) as ended:
        train_demo.main(FEW)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted: the same command resumes it\n"
    assert [path.name for path in work.iterdir()] == ["arguments.json"]


def test_a_folder_that_another_run_works_in(work):
    work.mkdir()
    with locked(work), pytest.raises(SystemExit) as ended:
        train_demo.main(FEW)
    assert ended.value.code == (
        "error: another run is training in work: wait until it ends, or name another --work"
    )
    assert not list(work.iterdir())


def test_arguments_that_cannot_be_leave_nothing(work, capsys):
    with pytest.raises(SystemExit) as ended:
        train_demo.main([*FEW[:-1], "0"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("error: --images is 0, but has to be 1 or more\n")
    assert not work.exists()
    work.touch()
    with pytest.raises(SystemExit) as ended:
        train_demo.main(FEW)
    assert ended.value.code == "error: [Errno 17] File exists: 'work'"
