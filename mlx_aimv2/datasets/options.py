"""Options for reading data: columns of a table, and files to leave out."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..options.fields import option


@dataclass(frozen=True)
class Columns:
    """The columns of a table to use; None for columns with the usual names.

    Attributes:
        image: paths of images.
        label: labels.
        caption: captions.
    """

    image: str | None = None
    label: str | None = None
    caption: str | None = None


@dataclass(frozen=True)
class Reading:
    """How to read data.

    Attributes:
        avoid: folders that do not belong to the data, such as that of the run; they need not exist.
        columns: the columns of tables.
    """

    exclude: tuple[str, ...] = option(
        (),
        "Leave out files and folders with this name, or this path inside the folder, such as 'raw' or 'thumb_*';"
        " may be given several times.",
        metavar="PATTERN",
    )
    avoid: tuple[str, ...] = ()
    columns: Columns = field(default_factory=Columns)
    image_root: str | None = option(
        None, "Folder that paths in a table are relative to. [default: the folder of the table]"
    )
