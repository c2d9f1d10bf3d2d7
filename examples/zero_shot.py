"""Classify images without training (zero-shot): each label is a text, the most probable comes first."""

from mlx_aimv2 import ZeroShotClassifier, load
from mlx_aimv2.demo.images import LABELS, sample_images

model, processor = load("demo")  # for photos: load("lit") and labels such as "dog"
classifier = ZeroShotClassifier(model, processor, LABELS, templates=["{}", "a {}"])

samples = sample_images()[:8]
for sample, predictions in zip(samples, classifier([sample.path for sample in samples]), strict=True):
    best = ", ".join(f"{label} {probability:.0%}" for label, probability in predictions[:3])
    print(f"{sample.caption}\n    {best}")
