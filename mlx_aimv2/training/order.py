"""The order in which an epoch takes its examples."""

from __future__ import annotations

import numpy as np

ORDER = 1  # the first number of the seed; batches have others for what else is random in them


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """(N,) the numbers from 0 on, in an order that follows from seed and epoch alone."""
    # raw bits are the same in every version of NumPy, which shuffles are not promised to be
    bits = np.random.PCG64([ORDER, seed, epoch]).random_raw(count)
    return np.argsort(bits, kind="stable")
