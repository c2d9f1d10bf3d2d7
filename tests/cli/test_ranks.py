"""Several processes of one command, started by `mlx.launch`."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from mlx_aimv2 import read_vectors
from mlx_aimv2.backend.ranks import Ranks
from mlx_aimv2.cli import embed

LAUNCH = "from mlx._distributed_utils.launch import main; main()"
LISTS = [[3, 1], [3, 1]]


def free_ports(count):
    """The first of so many ports that nothing listens on."""
    for first in range(20_000 + os.getpid() % 20_000, 60_000, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for number, each in enumerate(sockets):
                each.bind(("127.0.0.1", first + number))
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
        return first
    raise OSError("no ports are free")


def launched(count, *arguments):
    """Run the command in ``count`` processes; the result has what all of them printed."""
    command = [
        sys.executable,
        "-c",
        LAUNCH,
        "-n",
        str(count),
        "--backend",
        "ring",
        "-p",
        str(free_ports(count)),
    ]
    command += ["--", sys.executable, "-m", "mlx_aimv2", *map(str, arguments)]
    reader, writer = os.pipe()  # of a stdin that stays open: the launcher reads it all the time
    try:
        return subprocess.run(
            command,
            stdin=reader,
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "MLX_AIMV2_DEVICE": "cpu"},
        )
    finally:
        os.close(reader)
        os.close(writer)


def test_ranks_give_the_rows_of_one_process_and_end_together(cli, pair, photos, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(7):
        (images / f"{number}.png").write_bytes((photos / f"{number % 3}.png").read_bytes())
    (images / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    alone = cli("embed", images, "--model", pair, "-o", f"{tmp_path}/alone/")
    done = launched(2, "embed", images, "--model", pair, "-o", f"{tmp_path}/both/")
    assert alone.returncode == 1
    assert done.stderr.count("embedded ") == 1
    assert "mlx-aimv2: embedded 6 of 7 images in" in done.stderr
    assert ", 1 skipped" in done.stderr
    assert f"mlx-aimv2: rank 0: skipped {images / '1.png'}: " in done.stderr
    assert done.stderr.count("wrote 6 vectors in all") == 1
    assert "was killed" not in done.stdout + done.stderr
    one, two = (read_vectors(tmp_path / name) for name in ("alone", "both"))
    assert two.paths == one.paths
    np.testing.assert_allclose(two.embeddings, one.embeddings, atol=1e-6)
    lines = (tmp_path / "both/errors.jsonl").read_text(encoding="utf-8").splitlines()
    failures = [json.loads(line)["path"] for line in lines]
    assert failures == [str(images / "1.png")]
    again = cli("embed", images, "--model", pair, "-o", f"{tmp_path}/both/")
    assert "6 of them are in" in again.stderr


class Gathered(Ranks):
    """Ranks that have answered."""

    def gather(self, values):
        return LISTS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "2 processes have one output if it is a folder: add -o FOLDER/"),
        (["-o", "vectors.npz"], "2 processes cannot write one file, vectors.npz: end its name in /"),
        (
            ["-o", "vectors/", "--force"],
            "--force is for a single process: name a new folder, or remove vectors",
        ),
        (
            ["-", "-o", "vectors/"],
            "- reads stdin, which mlx.launch never ends: name images or folders instead",
        ),
    ],
)
def test_what_several_processes_cannot_do_is_refused(cli, photos, monkeypatch, options, message):
    monkeypatch.setattr(embed, "launched", lambda: Ranks(0, 2))
    done = cli("embed", photos, *options)
    assert (done.returncode, f"mlx-aimv2: error: {message}" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("other", [[4, 1], [3, 2]])
def test_ranks_with_other_images_are_refused(cli, photos, monkeypatch, tmp_path, other):
    monkeypatch.setattr(embed, "launched", lambda: Gathered(0, 2))
    monkeypatch.setattr(sys.modules[__name__], "LISTS", [[3, 1], other])
    done = cli("embed", photos, "-o", f"{tmp_path}/vectors/")
    assert done.returncode == 2
    assert f"rank 1 finds {other[0]} items and rank 0 3, or of other names: give all machines" in done.stderr


def test_signals_end_a_rank_that_waits_for_the_others():
    waits = (
        "import os, signal, sys\n"
        "from mlx_aimv2.cli.interrupts import ending_at_once, interrupting\n"
        "with interrupting(), ending_at_once():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", waits], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")
