"""Start of the command line, from nothing to its end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from data import photos, sample_image
from suite import Case, Family, Result, Setup, Side
from timing import repeated

EMBED = ["embed", "IMAGE", "--model", "demo"]
COMMANDS = {
    "--help": {"arguments": ["--help"]},
    "embed one image": {"arguments": EMBED},
    "embed one image, first use on a machine": {"arguments": EMBED, "is_first_use": True},
}


def command(setup: Setup, arguments: list[str], is_first_use: bool = False) -> Result:
    """`mlx-aimv2` with arguments, several times; its Python files and kernels have been compiled before."""
    program = [
        sys.executable,
        "-m",
        "mlx_aimv2",
        *(x.replace("IMAGE", sample_image(setup)) for x in arguments),
    ]

    def run() -> None:
        if not is_first_use:
            subprocess.run(program, check=True, capture_output=True)
            return
        with tempfile.TemporaryDirectory() as empty:  # for MLX's kernels, and for the rates of BLAS libraries
            environment = {**os.environ, "TMPDIR": empty, "XDG_CACHE_HOME": empty}
            subprocess.run(program, check=True, capture_output=True, env=environment)

    return {"timings": {"": repeated(setup, run, most=3 if is_first_use else 10, budget_s=10)}, "values": {}}


def cases(setup: Setup) -> list[Case]:
    """Each command."""
    return [
        Case(name, (Side("mlx-aimv2", command, arguments),), images=0, rounds=1, prepare=(photos(1),))
        for name, arguments in COMMANDS.items()
    ]


FAMILY = Family(
    "start",
    "Start of the command line",
    "Wall time of `mlx-aimv2 --help` and `mlx-aimv2 embed IMAGE --model demo` in a new process, with compiled Python"
    " files. The first use on a machine also measures its BLAS libraries, and compiles the kernels that MLX needs.",
    cases,
)
