"""Fine-tune with LoRA on a folder with one subfolder of images per class, and classify with the adapter."""

import itertools
import random
import tempfile
from pathlib import Path

from drawn_world.examples import training_example

from mlx_aimv2 import FinetuneOptions, TrainedClassifier, finetune, load

EACH = 12  # images per class


def draw(folder):
    """Draw a folder of images for each of four shapes."""
    examples = (training_example(index, split="shapes") for index in itertools.count())
    single = (example for example in examples if example.scene.other is None)
    missing = dict.fromkeys(("ring", "star", "heart", "arrow"), EACH)
    while any(missing.values()):
        example = next(single)
        shape = example.scene.thing.shape
        if missing.get(shape):
            missing[shape] -= 1
            (folder / shape).mkdir(parents=True, exist_ok=True)
            example.image(112).save(folder / shape / f"{missing[shape]}.png")


with tempfile.TemporaryDirectory() as work:
    images, adapter = Path(work, "images"), Path(work, "adapter")
    draw(images)
    options = FinetuneOptions(
        data=str(images), model="demo", adapter_path=str(adapter), fine_tune_type="lora", epochs=6,
        learning_rate=2e-3,
    )  # fmt: skip
    result = finetune(options)
    print(f"trained {result.trainable:,} of {result.parameters:,} numbers in {result.seconds:.1f} s")
    print(f"correct on held-out images: {result.evaluation.metrics.top1:.0%}")

    classifier = TrainedClassifier(*load("demo", adapter_path=adapter))
    paths = random.Random(0).sample(sorted(images.rglob("*.png")), 4)
    for path, item in zip(paths, classifier.stream([str(path) for path in paths]), strict=True):
        label, probability = item.predictions[0]
        print(f"{path.parent.name}: {label} {probability:.0%}")
