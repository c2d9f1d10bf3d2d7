"""Resampling of a learned position table for images of another size."""

from __future__ import annotations

import math
from collections.abc import Mapping

import mlx.core as mx
import numpy as np

from ..config import AnyConfig

TABLE = "embeddings.position_embedding.weight"
CUBIC = -0.75  # the slope that PyTorch's and OpenCV's bicubic have


def table_name(config: AnyConfig) -> str:
    """The canonical name of the position table of the vision encoder."""
    return f"vision_model.{TABLE}" if config.is_pair else TABLE


def table_size(tensors: Mapping[str, mx.array], config: AnyConfig) -> int | None:
    """The image size of a position table, in pixels on a side; None without a table or for no square grid."""
    table = tensors.get(table_name(config))
    if table is None or table.ndim != 2:
        return None
    grid = math.isqrt(table.shape[0])
    return grid * config.vision.patch_size if grid * grid == table.shape[0] else None


def bicubic_weights(old: int, new: int) -> np.ndarray:
    """The weights of ``old`` samples along an axis for ``new`` ones: (new, old) float32, each row sums to 1.

    Samples are in the middle of equal parts of the axis (`align_corners=False`), the outermost repeat beyond its
    ends, and fewer samples than before are not smoothed (`antialias=False`). Source: PyTorch's
    `torch.nn.functional.interpolate` with `mode="bicubic"`.
    """
    weights = np.zeros((new, old), dtype=np.float64)
    for row in range(new):
        place = (row + 0.5) * old / new - 0.5
        first = math.floor(place)
        for tap in range(first - 1, first + 3):
            weights[row, min(max(tap, 0), old - 1)] += _cubic(abs(place - tap))
    return weights.astype(np.float32)


def _cubic(x: float) -> float:
    """Keys' cubic kernel at a distance of ``x`` samples."""
    if x <= 1:
        return ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    return ((x - 5) * x + 8) * x * CUBIC - 4 * CUBIC if x < 2 else 0.0


def resample_table(table: mx.array, grid: int) -> mx.array:
    """A position table (h * h, D) for ``grid`` patches on a side: (grid * grid, D) float32, lazy.

    It is computed on the CPU, so that every machine gives the same: a GPU may multiply float32 with fewer bits.
    """
    old, dim = math.isqrt(table.shape[0]), table.shape[1]
    with mx.stream(mx.cpu):
        weights = mx.array(bicubic_weights(old, grid))
        rows = weights @ table.astype(mx.float32).reshape(old, old * dim)  # (grid, old * D)
        return (weights @ rows.reshape(grid, old, dim)).reshape(grid * grid, dim)
