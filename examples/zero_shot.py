"""Labels for images without training: the labels are words, and the likeliest comes first."""

from mlx_aimv2 import ZeroShotClassifier, load
from mlx_aimv2.demo.examples import shown_examples
from mlx_aimv2.demo.scenes import LABELS

model, processor = load("demo")  # knows drawings; for photos: load("lit") and labels such as "a dog"
classifier = ZeroShotClassifier(model, processor, LABELS, templates=["{}", "a {}"])

examples = shown_examples(8)
for example, predictions in zip(examples, classifier([one.image(224) for one in examples]), strict=True):
    best = ", ".join(f"{label} {probability:.0%}" for label, probability in predictions[:3])
    print(f"{example.caption}\n    {best}")
