"""Embed images: the vectors have unit length, so the product of two is their cosine."""

from mlx_aimv2 import Embedder, load, sample_images

images = [sample.path for sample in sample_images()[:3]]  # or your own: ["photo.jpg"]

model, processor = load("demo")  # for photos: load("lit"), Apple's checkpoint (a download)
vectors = Embedder(model, processor).images(images)
print(vectors.shape, vectors.dtype, "cosines with the first:", (vectors @ vectors[0]).round(2))
