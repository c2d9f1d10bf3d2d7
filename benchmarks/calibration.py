"""Quantization with and without calibration: cosines of embeddings with those of the original, on other images.

python benchmarks/calibration.py CHECKPOINT IMAGES_TO_CALIBRATE IMAGES_TO_COMPARE [--bits 2 3 4]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from mlx_aimv2 import ConvertOptions, convert
from mlx_aimv2.fidelity.compare import compare
from mlx_aimv2.sources.paths import find_images


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("calibrate")
    parser.add_argument("compare")
    parser.add_argument("--bits", nargs="+", type=int, default=[2, 3, 4])
    arguments = parser.parse_args()
    images = list(find_images([arguments.compare]).images)
    print("bits\trounding\tleast cosine\tmean cosine\tlargest layer error of the vision encoder\tseconds")
    for bits in arguments.bits:
        for name, calibrate in (("plain", ()), ("calibrated", (arguments.calibrate,))):
            options = ConvertOptions(dtype="float16", calibrate=calibrate)
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                target = convert(
                    arguments.checkpoint, Path(folder) / "out", quantize=True, q_bits=bits, options=options
                )
                seconds = time.perf_counter() - start
                report = compare(arguments.checkpoint, target, images)
            error = max(error for layer, error in report.layers if not layer.startswith("text_model."))
            cosines = f"{report.cosine_min:.4f}\t{report.cosine_mean:.4f}"
            print(f"{bits}\t{name}\t{cosines}\t{error:.1%}\t{seconds:.0f}", flush=True)


if __name__ == "__main__":
    main()
