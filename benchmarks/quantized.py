"""Whole runs of `mlx-aimv2 embed` with two checkpoints, in turns: what quantized weights cost or save.

On a CPU quantized weights are unpacked when a checkpoint is loaded; the ratio shows what that costs.

    python benchmarks/quantized.py FLOAT32_CHECKPOINT QUANTIZED_CHECKPOINT IMAGES... [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(checkpoint, images, output):
    command = [sys.executable, "-m", "mlx_aimv2", "embed", *images, "--model", checkpoint, "-o", output]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plain")
    parser.add_argument("quantized")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    taken = {given.plain: [], given.quantized: []}
    for _ in range(given.rounds):
        for checkpoint, list_ in taken.items():
            with tempfile.TemporaryDirectory() as folder:
                list_.append(seconds(checkpoint, given.images, Path(folder) / "out.npz"))
    plain, quantized = (statistics.median(list_) for list_ in taken.values())
    print(
        f"{given.plain}\t{plain:.2f} s\n{given.quantized}\t{quantized:.2f} s\nratio\t{quantized / plain:.2f}"
    )


if __name__ == "__main__":
    main()
