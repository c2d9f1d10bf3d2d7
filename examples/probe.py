"""Train a linear probe: one layer on features that the frozen encoder computes once.

The label is the number of shapes on an image.
"""

import csv
import tempfile
from pathlib import Path

from drawn_world.captions import NUMBERS
from drawn_world.examples import training_examples

from mlx_aimv2 import FinetuneOptions, finetune

with tempfile.TemporaryDirectory() as work:
    folder = Path(work)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label"))
        for number, example in enumerate(training_examples(200, split="numbers")):
            if example.scene.other is None:
                example.image(112).save(folder / f"{number}.png")
                table.writerow((f"{number}.png", NUMBERS.get(example.scene.thing.count, "one")))

    options = FinetuneOptions(
        data=str(folder / "labels.csv"), model="demo", adapter_path=str(folder / "probe"),
        fine_tune_type="linear", epochs=20, learning_rate=1e-2, batch_size=64,
    )  # fmt: skip
    result = finetune(options)
    metrics = result.evaluation.metrics
    for measure, value in metrics.rows():
        print(f"{measure}: {value}")
    share = max(row.support for row in metrics.per_class) / metrics.count
    macro_f1 = 2 * share / (1 + share) / len(metrics.labels)
    print(f"always the most frequent number: top-1 {share:.2%}, macro F1 {macro_f1:.2%}")
    print(f"{result.trainable:,} numbers trained in {result.seconds:.1f} s")
