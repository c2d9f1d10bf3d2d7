"""`SourceOptions`: how to read files with many images, and addresses; `CropOptions`: which regions of images."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..options.fields import at_least, check_fields, more_than, option

SOURCES = "Videos, archives, tables, addresses"
REGIONS = "Regions of images"


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
    max_download_mb: float = option(50.0, "Skip larger images at addresses.", SOURCES, more_than(0))
    max_download_s: float = option(
        60.0, "Seconds for an image at an address, with all attempts.", SOURCES, more_than(0)
    )
    allow_redirects: bool = option(False, "Follow redirects from addresses, at most 5.", SOURCES)
    allow_private_addresses: bool = option(
        False,
        "Read from addresses of this machine, of local and other networks that are not public.",
        SOURCES,
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.fps is not None and self.every is not None:
            raise InputError("--fps and --every both say which frames: give one of them")


@dataclass(frozen=True)
class CropOptions:
    """Which regions of images to take in place of whole images.

    Raises:
        InputError: a field has an invalid value.
    """

    boxes: Path | None = option(
        None, "Only these regions: CSV or JSON lines of path,left,top,right,bottom in pixels.", REGIONS
    )
    tiles: str | None = option(None, "Cut every image into rows x columns, such as 2x3.", REGIONS)

    def __post_init__(self) -> None:
        if self.boxes is not None and self.tiles is not None:
            raise InputError("--boxes and --tiles both say which regions: give one of them")
        if self.tiles is not None:
            self.grid_of_tiles  # noqa: B018 - raises for an invalid value

    def __bool__(self) -> bool:
        return self.boxes is not None or self.tiles is not None

    @property
    def grid_of_tiles(self) -> tuple[int, int]:
        """The rows and columns of tiles."""
        match = re.fullmatch(
            r"([1-9]\d{0,2})[x\u00d7]([1-9]\d{0,2})", (self.tiles or "").strip().lower(), re.ASCII
        )
        if match is None:
            raise InputError(
                f"--tiles must be rows x columns from 1x1 to 999x999, such as 2x3, not {self.tiles!r}"
            )
        return int(match[1]), int(match[2])
