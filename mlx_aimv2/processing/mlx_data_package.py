"""The package mlx-data, imported when it is first used."""

from __future__ import annotations

import functools
import platform
import sys
import threading
from typing import Any

import numpy as np

from ..errors import InputError

WHEELS = (("linux", "x86_64"), ("darwin", "arm64"))  # the machines that mlx-data is built for
NEWEST_PYTHON = (3, 13)
_importing = threading.Lock()


def mlx_data(purpose: str, instead: str = "") -> Any:
    """The module `mlx.data`.

    Args:
        purpose: what needs it, for the message if it is missing.
        instead: what to do where there is no package for this machine.

    Raises:
        InputError: it cannot be imported.
    """
    with _importing:
        try:
            return _imported()
        except ImportError as error:
            machine = (sys.platform, platform.machine())
            if machine in WHEELS and sys.version_info[:2] <= NEWEST_PYTHON:
                reason = " ".join(str(error).split())
                raise InputError(
                    f"{purpose} needs the package mlx-data ({reason}): pip install mlx-data"
                ) from error
            raise InputError(
                f"{purpose} needs the package mlx-data, which exists for Linux on x86-64 and macOS on Apple silicon"
                f" with Python up to 3.13, not for {' '.join(machine)} with Python {platform.python_version()}"
                f"{instead and ': ' + instead}"
            ) from error


@functools.cache
def _imported() -> Any:
    import mlx.data

    module: Any = mlx.data
    # its first use of NumPy must not be in two threads at once: they can wait for each other for ever
    module.buffer_from_vector([{"image": np.zeros(1)}])[0]
    return module
