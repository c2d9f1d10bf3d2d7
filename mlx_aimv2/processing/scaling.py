"""Scale 16-bit, 32-bit and float samples to 8-bit levels.

- **Unsigned samples of up to 16 bits** are light: 0 is black, and the largest number of their significant bits is
  white. The file may declare fewer bits (`sBIT` of PNG, the greatest value of PGM, 10 or 12 bits of TIFF).
- **All others (signed, wider than 16 bits, float)** are measurements: the smallest of the image is black and the
  greatest white, over all channels together, so an offset of all samples changes nothing. NaN, infinity and the
  declared no-data value are ignored, and become transparent.
- **Floats within 0..1** are not stretched: float images are stored in this range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError

AT_ONCE = 2**22  # samples that are computed at once, in float64


def scaled(
    values: NDArray[Any], most: int | None = None, missing: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """Scale samples to levels of 0..255, in the same shape.

    Args:
        values: Any shape, unsigned, signed or float.
        most: The number that is white, for light; None stretches from the smallest to the greatest sample.
        missing: The samples without data, in the shape of `values`; they become 0, as do NaN and infinity.

    Raises:
        ImageError: All samples are NaN, infinite or no data.
    """
    flat = values.reshape(-1)
    hidden = None if missing is None else missing.reshape(-1)
    if most is not None:
        low, high = 0.0, float(most)
    else:
        low, high = _range(flat, hidden)
    if most is None and values.dtype.kind == "f" and low >= 0.0 and high <= 1.0:
        low, high = 0.0, 1.0
    half = (high / 2 - low / 2) or 1.0  # halves, because the span of the widest floats overflows
    levels = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        wide = np.nan_to_num(flat[part].astype(np.float64), nan=low, posinf=low, neginf=low)
        if hidden is not None:
            wide[hidden[part]] = low
        share = (wide / 2 - low / 2) / half
        levels[part] = np.rint(np.clip(share, 0.0, 1.0) * 255)
    return levels.reshape(values.shape)


def valid(values: NDArray[Any], no_data: float | None = None) -> NDArray[np.bool_]:
    """(H, W) of pixels (H, W, C) with data: every channel finite, and not all equal to `no_data`."""
    some = np.ones(values.shape[:2], bool)
    if values.dtype.kind == "f":
        some &= np.isfinite(values).all(axis=-1)
    if no_data is not None:
        some &= ~is_no_data(values, no_data).all(axis=-1)
    return some


def is_no_data(values: NDArray[Any], no_data: float) -> NDArray[np.bool_]:
    """The samples that equal the no-data value of the file."""
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.asarray(values == values.dtype.type(no_data))
    return np.asarray(values == no_data)


def _range(flat: NDArray[Any], hidden: NDArray[np.bool_] | None) -> tuple[float, float]:
    """The smallest and the greatest of the samples with data."""
    ends = []
    for start in range(0, len(flat), AT_ONCE):
        part = flat[start : start + AT_ONCE]
        keep = np.isfinite(part) if part.dtype.kind == "f" else np.ones(part.shape, bool)
        if hidden is not None:
            keep &= ~hidden[start : start + AT_ONCE]
        if keep.any():
            ends += [float(part[keep].min()), float(part[keep].max())]
    if not ends:
        raise ImageError("no pixel holds a number: all are NaN, infinite or no data")
    return min(ends), max(ends)
