"""A linear probe: features of the frozen encoder, computed once, and one layer trained on them in a moment.

The question is how many things there are.
"""

import csv
import tempfile
from pathlib import Path

from mlx_aimv2 import FinetuneOptions, finetune
from mlx_aimv2.demo.captions import NUMBERS
from mlx_aimv2.demo.examples import training_examples

with tempfile.TemporaryDirectory() as work:
    folder = Path(work)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label"))
        for number, example in enumerate(training_examples(300, split="numbers")):
            if example.scene.other is None:
                example.image(112).save(folder / f"{number}.png")
                table.writerow((f"{number}.png", NUMBERS.get(example.scene.thing.count, "one")))

    options = FinetuneOptions(
        data=str(folder / "labels.csv"), model="demo", adapter_path=str(folder / "probe"),
        fine_tune_type="linear", epochs=40, learning_rate=1e-2, batch_size=64,
    )  # fmt: skip
    finished = finetune(options)
    metrics = finished.evaluation.metrics
    for measure, value in metrics.rows():
        print(f"{measure}: {value}")
    share = max(one.support for one in metrics.per_class) / metrics.count
    macro_f1 = 2 * share / (1 + share) / len(metrics.labels)
    print(f"the commonest number for every image: top-1 {share:.2%}, macro F1 {macro_f1:.2%}")
    print(f"{finished.trainable:,} numbers trained in {finished.seconds:.1f} s")
