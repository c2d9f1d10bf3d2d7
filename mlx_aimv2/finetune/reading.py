"""How data is read: what is left out of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """How data is read.

    Attributes:
        exclude: patterns of files and folders to leave out.
        avoid: folders that are no data, such as the one of the run; they need not be there.
    """

    exclude: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
