"""Classify images without training (zero-shot): each label is a text, the most probable comes first."""

from mlx_aimv2 import ZeroShotClassifier, load, sample_images

samples = sample_images()[:8]
labels = sorted({label for sample in sample_images() for label in sample.labels})

model, processor = load("demo")  # for photos: load("lit") and labels such as "dog"
classifier = ZeroShotClassifier(model, processor, labels, templates=["{}", "a {}"])

for sample, predictions in zip(samples, classifier([sample.path for sample in samples]), strict=True):
    best = ", ".join(f"{label} {probability:.0%}" for label, probability in predictions[:3])
    print(f"{sample.caption}\n    {best}")
