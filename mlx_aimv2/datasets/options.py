"""Options for reading data: what to leave out of it, and the columns of a table."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are used; None for those with the usual names.

    Attributes:
        image: the path of an image.
        label: its labels.
        caption: its captions.
    """

    image: str | None = None
    label: str | None = None
    caption: str | None = None


@dataclass(frozen=True)
class Reading:
    """How data is read.

    Attributes:
        exclude: patterns of files and folders to leave out.
        avoid: folders that are no data, such as the one of the run; they need not be there.
        columns: of tables.
        image_root: what the paths in a table are relative to; None for the folder of the table.
    """

    exclude: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    columns: Columns = field(default_factory=Columns)
    image_root: str | None = None
