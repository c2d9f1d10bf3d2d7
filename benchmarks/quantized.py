"""Duration of `mlx-aimv2 embed` with a float32 and a quantized checkpoint, in turns.

On a CPU, quantized weights are unpacked while a checkpoint is loaded; the ratio includes that.

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
    arguments = parser.parse_args()
    durations = {arguments.plain: [], arguments.quantized: []}
    for _ in range(arguments.rounds):
        for checkpoint, values in durations.items():
            with tempfile.TemporaryDirectory() as folder:
                values.append(seconds(checkpoint, arguments.images, Path(folder) / "out.npz"))
    plain, quantized = (statistics.median(values) for values in durations.values())
    print(
        f"{arguments.plain}\t{plain:.2f} s\n{arguments.quantized}\t{quantized:.2f} s\nratio\t{quantized / plain:.2f}"
    )


if __name__ == "__main__":
    main()
