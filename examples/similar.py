"""Search images by image and by text: both are a product of embeddings."""

from mlx_aimv2 import Embedder, load, sample_images

samples = sample_images()
embedder = Embedder(*load("demo"))
vectors = embedder.images([sample.path for sample in samples])  # (N, P), unit length


def best(scores, count):
    """The cosines and captions of the best images."""
    return [f"    {scores[k]:+.2f}  {samples[k].caption}" for k in (-scores).argsort()[:count]]


print(f"images like the image of {samples[0].caption}:")
print("\n".join(best(vectors @ vectors[0], 4)[1:]))  # the first is the image itself

for sentence in ("a red circle", "something on a navy background", "four brown arrows"):
    print(f"images for {sentence!r}:")
    print("\n".join(best(vectors @ embedder.texts(sentence)[0], 3)))
