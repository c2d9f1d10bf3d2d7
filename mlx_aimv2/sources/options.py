"""`SourceOptions`: how to read files with many images, and addresses."""

from __future__ import annotations

from dataclasses import dataclass

from ..options.fields import at_least, check_fields, more_than, option

SOURCES = "Videos, archives, tables, addresses"


@dataclass(frozen=True)
class SourceOptions:
    """How to read files with many images, and addresses.

    Raises:
        InputError: a field has an invalid value.
    """

    fps: float | None = option(
        None,
        "Of videos, take this many frames a second. [default: 1 for videos that are named]",
        SOURCES,
        more_than(0),
    )
    every: int | None = option(None, "Of videos, take every n-th frame.", SOURCES, at_least(1))
    image_column: str | None = option(
        None, "The column of a table that holds the images. [default: the only one]", SOURCES, metavar="NAME"
    )
    id_column: str | None = option(
        None,
        "The column of a table that names the images. [default: number of the row]",
        SOURCES,
        metavar="NAME",
    )

    def __post_init__(self) -> None:
        check_fields(self)
