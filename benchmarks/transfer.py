"""What the features of the checkpoint `demo` are worth elsewhere: scikit-learn's handwritten digits.

The same logistic regression on raw pixels, on the mean of the frozen encoder's tokens and on all of its tokens; its
strength is chosen on training digits alone. Then LoRA and full fine-tuning of the encoder, 10 epochs each, top-1 of
the best epoch. Each is measured on a held-out fifth; that of the regressions holds other digits than that of the
trainings. One line for each, for every seed.

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
WAYS = {
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
    given = parser.parse_args()
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as work:
        folder = write_digits(Path(work, "digits"), range(10), side=84)
        if given.only != "training":
            for name, x in features(given.model, folder).items():
                found[name] = [probe(x, seed) for seed in given.seeds]
                print(f"probe on {name} ({x.shape[1]:,}): {statistics.mean(found[name]):.2%}", flush=True)
        for name, way in WAYS.items() if given.only != "probes" else ():
            for seed in given.seeds:
                top1, _ = run(name, folder, given.model, Path(work, f"{name}-{seed}"), seed, way)
                found.setdefault(name, []).append(top1)
    print("\nmethod\tmean top-1\tspread")
    for name, values in found.items():
        print(f"{name}\t{statistics.mean(values):.2%}\t{max(values) - min(values):.2%}")


if __name__ == "__main__":
    main()
