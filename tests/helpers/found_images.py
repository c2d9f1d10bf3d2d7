"""What the images that names stand for decode to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mlx_aimv2.errors import ImageError
from mlx_aimv2.processing.decode import decode_image
from mlx_aimv2.sources.find import Found


def first_sample(image: Any) -> int:
    """The first sample of the first pixel."""
    return int(np.asarray(decode_image(image))[0, 0, 0])


def values(found: Found, value: Callable[[Any], int] = first_sample) -> dict[str, int | str]:
    """Id, without the folder, to a value of the image, or to the error."""
    result: dict[str, int | str] = {}
    for image in found.images:
        name = Path(str(image)).name
        try:
            result[name] = value(image)
        except ImageError as error:
            result[name] = error.message
    return result
