"""Fine-tuning methods on scikit-learn's handwritten digits, with a small encoder that is trained from scratch.

For every seed: full fine-tuning from random weights; then an encoder trained on the digits 0 to 4, and from it full
fine-tuning, LoRA and probes on all ten digits. Prints a line for each, and mean and spread (largest minus smallest)
at the end. A fifth of each class is held out; top-1 is that of the best epoch.

    pip install 'mlx-aimv2[bench]'
    python benchmarks/digits.py [--seeds 0 1 2] [--work FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))  # for drawn_world

from mlx_aimv2 import Aimv2VisionConfig, FinetuneOptions, finetune  # isort: skip - before MLX, because it loads the BLAS
import mlx.core as mx
from drawn_world.untrained import write_checkpoint
from PIL import Image
from sklearn.datasets import load_digits

from mlx_aimv2.adapters.weights import TRUNK

CONFIG = Aimv2VisionConfig(
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=4,
    num_attention_heads=2,
    image_size=24,
    patch_size=4,
    use_head=False,
)
TRAIN = {"batch_size": 32, "weight_decay": 0.05, "random_resized_crop": 0.7, "metric": "top1"}
FULL = {**TRAIN, "fine_tune_type": "full", "learning_rate": 1e-3, "epochs": 30}
METHODS = {
    "full": {**TRAIN, "fine_tune_type": "full", "learning_rate": 5e-4, "epochs": 15},
    "lora": {**TRAIN, "fine_tune_type": "lora", "learning_rate": 5e-3, "epochs": 15, "rank": 2, "alpha": 4},
    "attentive": {"fine_tune_type": "attentive", "epochs": 30, "learning_rate": 2e-3, "batch_size": 32},
    "linear": {
        "fine_tune_type": "linear",
        "epochs": 30,
        "learning_rate": 1e-2,
        "batch_size": 32,
        "batch_norm": True,
    },
    "knn": {"fine_tune_type": "knn", "batch_size": 32},
}


def write_digits(folder, classes, side=24):
    """Write the digits as PNG files of ``side`` pixels, one folder per class."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        if label in classes:
            (folder / str(label)).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray((pixels * 255 / 16).astype("uint8"))
            image.resize((side, side), Image.Resampling.BICUBIC).save(
                folder / str(label) / f"{number:04d}.png"
            )
    return folder


def run(name, data, base, out, seed, method):
    start = time.perf_counter()
    options = {"data": str(data), "model": str(base), "adapter_path": str(out), "seed": seed, **method}
    done = finetune(FinetuneOptions(**options))
    top1 = done.evaluation.metrics.top1
    seconds = time.perf_counter() - start
    print(f"{seed}\t{name}\t{top1:.2%}\t{done.trainable:,}\t{done.parameters:,}\t{seconds:.0f} s", flush=True)
    return top1, done.trainable


def as_checkpoint(base, trained, folder):
    """Write the base with the weights of a fully fine-tuned encoder."""
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    mx.save_safetensors(
        str(folder / "model.safetensors"), mx.load(str(trained / TRUNK)), metadata={"format": "mlx"}
    )
    return folder


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    results: dict[str, list[float]] = {}
    trained: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        all_digits = write_digits(work / "digits", range(10))
        half = write_digits(work / "half", range(5))
        print("seed\tmethod\ttop-1\ttrained numbers\tof\ttime")
        for seed in arguments.seeds:
            place = work / f"seed-{seed}"
            place.mkdir()
            fresh = write_checkpoint(place / "fresh", CONFIG, "mlx", seed=seed)
            scratch, _ = run("full, from scratch", all_digits, fresh, place / "scratch", seed, FULL)
            results.setdefault("full, from scratch", []).append(scratch)
            run("full, digits 0 to 4 only", half, fresh, place / "half", seed, FULL)
            base = as_checkpoint(fresh, place / "half", place / "base")
            for name, options in METHODS.items():
                top1, trained[name] = run(name, all_digits, base, place / name, seed, options)
                results.setdefault(name, []).append(top1)
    print("\nmethod\tmean top-1\tspread")
    for name, values in results.items():
        print(f"{name}\t{statistics.mean(values):.2%}\t{max(values) - min(values):.2%}")
    share = trained["lora"] / trained["full"]
    behind = max(full - lora for full, lora in zip(results["full"], results["lora"], strict=True))
    print(f"\nLoRA trains {share:.1%} of what full trains, and is at most {behind:.2%} behind it")


if __name__ == "__main__":
    main()
