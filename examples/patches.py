"""Show patch features as colours: the three principal components of all patches as red, green and blue."""

import numpy as np
from PIL import Image

from mlx_aimv2 import Embedder, load, sample_images

SIDE, COUNT = 224, 6

images = [sample.open() for sample in sample_images()[:COUNT]]
grids = Embedder(*load("demo"), pooling="tokens").images(images)  # (N, h, w, D)
count, h, w, width = grids.shape

tokens = grids.reshape(-1, width)
_, _, directions = np.linalg.svd(tokens - tokens.mean(axis=0), full_matrices=False)
main = (tokens - tokens.mean(axis=0)) @ directions[:3].T  # (N h w, 3)
low, high = np.percentile(main, (2, 98), axis=0)
colors = (np.clip((main - low) / (high - low), 0, 1) * 255).astype(np.uint8).reshape(count, h, w, 3)

sheet = Image.new("RGB", (COUNT * SIDE, 2 * SIDE), "white")
for k in range(COUNT):
    sheet.paste(images[k], (k * SIDE, 0))
    sheet.paste(Image.fromarray(colors[k]).resize((SIDE, SIDE), Image.Resampling.NEAREST), (k * SIDE, SIDE))
sheet.save("patches.png")
print(f"{count} grids of {h} x {w} features, {width} wide: see patches.png")
