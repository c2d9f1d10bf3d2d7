"""Images that are like an image, and images that a sentence is about: both are a product of vectors."""

from mlx_aimv2 import Embedder, load
from mlx_aimv2.demo.examples import shown_examples

examples = shown_examples(40)
embedder = Embedder(*load("demo"))
vectors = embedder.images([example.image(224) for example in examples])  # (40, P), unit length


def best(scores, count):
    """The captions of the best images."""
    return [f"    {scores[k]:+.2f}  {examples[k].caption}" for k in (-scores).argsort()[:count]]


print(f"like the image of {examples[0].caption}:")
print("\n".join(best(vectors @ vectors[0], 4)[1:]))  # the first is the image itself

for sentence in ("a red circle", "stars on a navy background", "three brown arrows"):
    print(f"{sentence}:")
    print("\n".join(best(vectors @ embedder.texts(sentence)[0], 3)))
