"""Transfer of the checkpoint `demo` to scikit-learn's handwritten digits: probes, LoRA and full fine-tuning.

Logistic regression on raw pixels, on the mean of the frozen encoder's tokens and on all tokens, with its strength
chosen on training digits; then LoRA and full fine-tuning, 10 epochs each, top-1 of the best epoch. Each is measured
on a held-out fifth; regressions and trainings hold out different digits. Prints a line for each and every seed.

    pip install 'mlx-aimv2[bench]'
    python benchmarks/transfer.py [--model demo] [--seeds 0 1 2]
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from digits import run, write_digits
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mlx_aimv2 import Embedder, load
from mlx_aimv2.presets import DEMO_MODEL

STRENGTHS = (1e-3, 1e-2, 1e-1, 1)
TRAIN = {"epochs": 10, "batch_size": 32, "metric": "top1"}
METHODS = {
    "LoRA": {**TRAIN, "fine_tune_type": "lora", "learning_rate": 3e-3, "rank": 8, "alpha": 16},
    "full": {**TRAIN, "fine_tune_type": "full", "learning_rate": 3e-4},
}


def features(model, folder):
    """{name: (N, F)} of the digits in the order of scikit-learn."""
    paths = sorted(folder.rglob("*.png"), key=lambda path: path.name)
    tokens = Embedder(*load(model), pooling="tokens").images(paths)  # (N, h, w, D)
    tokens = tokens.reshape(len(paths), -1, tokens.shape[-1])
    return {
        "raw pixels": load_digits().data,
        "mean of the tokens": tokens.mean(axis=1),
        "all tokens": tokens.reshape(len(paths), -1),
    }


def probe(x, seed):
    """Top-1 of a logistic regression on a held-out fifth."""
    labels = load_digits().target
    x_train, x_val, train, val = train_test_split(
        x, labels, test_size=0.2, stratify=labels, random_state=seed
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    search = GridSearchCV(model, {"logisticregression__C": STRENGTHS}, cv=3)
    return search.fit(x_train, train).score(x_val, val)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=DEMO_MODEL)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=("probes", "training"))
    arguments = parser.parse_args()
    results: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as work:
        folder = write_digits(Path(work, "digits"), range(10), side=84)
        if arguments.only != "training":
            for name, x in features(arguments.model, folder).items():
                results[name] = [probe(x, seed) for seed in arguments.seeds]
                print(f"probe on {name} ({x.shape[1]:,}): {statistics.mean(results[name]):.2%}", flush=True)
        for name, method in METHODS.items() if arguments.only != "probes" else ():
            for seed in arguments.seeds:
                top1, _ = run(name, folder, arguments.model, Path(work, f"{name}-{seed}"), seed, method)
                results.setdefault(name, []).append(top1)
    print("\nmethod\tmean top-1\tspread")
    for name, values in results.items():
        print(f"{name}\t{statistics.mean(values):.2%}\t{max(values) - min(values):.2%}")


if __name__ == "__main__":
    main()
