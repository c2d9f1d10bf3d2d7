"""An image to a vector, in three lines."""

from mlx_aimv2 import Embedder, load
from mlx_aimv2.demo.examples import shown_examples

images = [example.image(224) for example in shown_examples(3)]  # or paths: ["photo.jpg"]

model, processor = load("demo")  # "lit" is Apple's, after a download
vectors = Embedder(model, processor).images(images)
print(vectors.shape, vectors.dtype, "cosines with the first:", (vectors @ vectors[0]).round(2))
