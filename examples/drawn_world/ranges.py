"""Check that a number is in a range."""

from __future__ import annotations

import math

from mlx_aimv2.errors import InputError


def check_range(what: str, value: float, least: float, most: float = math.inf) -> None:
    """Refuse a number that is out of range.

    Raises:
        InputError: the number is not from ``least`` to ``most``.
    """
    if not least <= value <= most:
        rule = f"{least:,} or more" if most == math.inf else f"from {least:,} to {most:,}"
        raise InputError(f"{what} is {value!r}, but has to be {rule}")
