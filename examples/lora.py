"""LoRA on a folder of images, one subfolder for each class: a small adapter, and a classifier that uses it."""

import itertools
import random
import tempfile
from pathlib import Path

from mlx_aimv2 import FinetuneOptions, TrainedClassifier, finetune, load
from mlx_aimv2.demo.examples import training_example

EACH = 24  # images of each class


def draw(folder):
    """A folder for each of four shapes, with images of it."""
    examples = (training_example(index, split="shapes") for index in itertools.count())
    alone = (one for one in examples if one.scene.other is None)
    left = dict.fromkeys(("ring", "star", "heart", "arrow"), EACH)
    while any(left.values()):
        example = next(alone)
        shape = example.scene.thing.shape
        if left.get(shape):
            left[shape] -= 1
            (folder / shape).mkdir(parents=True, exist_ok=True)
            example.image(112).save(folder / shape / f"{left[shape]}.png")


with tempfile.TemporaryDirectory() as work:
    images, adapter = Path(work, "images"), Path(work, "adapter")
    draw(images)
    options = FinetuneOptions(
        data=str(images), model="demo", adapter_path=str(adapter), fine_tune_type="lora", epochs=8,
        learning_rate=2e-3,
    )  # fmt: skip
    finished = finetune(options)
    print(f"trained {finished.trainable:,} of {finished.parameters:,} numbers in {finished.seconds:.1f} s")
    print(f"right on images it was not trained on: {finished.evaluation.metrics.top1:.0%}")

    classifier = TrainedClassifier(*load("demo", adapter_path=adapter))
    some = random.Random(0).sample(sorted(images.rglob("*.png")), 4)
    for path, item in zip(some, classifier.stream([str(path) for path in some]), strict=True):
        label, probability = item.predictions[0]
        print(f"{path.parent.name}: {label} {probability:.0%}")
