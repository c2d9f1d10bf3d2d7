"""Files that hold many images: a table of their kinds. The images are listed first and read when they are decoded."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn, cast

from ..processing.source_image import SourceImage
from .extensions import KINDS
from .folder_scan import Rules
from .ignored import Ignored
from .options import SourceOptions


@dataclass(frozen=True)
class Listing:
    """What a file with many images holds.

    Attributes:
        images: in order. An image that cannot be read is among them: opening it raises the reason.
        ignored: everything else.
        empty: why there are no images at all, such as "no column of images"; `OWN` if this program wrote the file.
    """

    images: tuple[SourceImage, ...] = ()
    ignored: Ignored = field(default_factory=Ignored)
    empty: str = "no images"


# of a file at a path; raises ImageError, OSError or MissingExtraError
ListImages = Callable[[str, Rules, SourceOptions], Listing]


@dataclass(frozen=True)
class Container:
    """A kind of files that hold many images.

    Attributes:
        noun: for such a file, in messages.
        suffixes: of their names, in lower case.
        module: within this package, with a function ``list_images`` that is a `ListImages`.
        in_folders: whether such a file is read where a folder is named, and not the file itself.
    """

    noun: str
    suffixes: tuple[str, ...]
    module: str
    in_folders: Callable[[SourceOptions], bool] = lambda options: True

    def list_images(self, path: str, rules: Rules, options: SourceOptions) -> Listing:
        """The images of a file.

        Raises:
            ImageError: the file is damaged.
            OSError: it cannot be read.
            MissingExtraError: a package that reads such files is not installed.
        """
        module = importlib.import_module(f".{self.module}", __package__)
        return cast(ListImages, module.list_images)(path, rules, options)


VIDEOS = tuple(KINDS["video"].split())
CONTAINERS = (
    Container("archive", (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz"), "tar"),
    Container("table", (".parquet",), "parquet"),
    Container("video", VIDEOS, "video", lambda options: bool(options.fps or options.every)),
    Container("video", (".ts",), "video", lambda options: False),  # in folders: TypeScript
)


def suffixes_of(options: SourceOptions | None = None) -> tuple[str, ...]:
    """The suffixes of files with many images; with ``options``, of those that are read where a folder is named."""
    chosen = [row for row in CONTAINERS if options is None or row.in_folders(options)]
    return tuple(suffix for row in chosen for suffix in row.suffixes)


def container_of(name: str) -> Container | None:
    """The kind of a file by its name; None for a file that is not known to hold many images."""
    lower = name.lower()
    return next((row for row in CONTAINERS if lower.endswith(row.suffixes)), None)


def unique_id(ids: Counter[str], name: str) -> str:
    """The id of the next image of a name: those after the first get a number. ``ids`` counts the names."""
    ids[name] += 1
    return f"{name}#{ids[name]}" if ids[name] > 1 else name


def failing(error: Exception) -> Callable[[], NoReturn]:
    """What opens an image that cannot be read: it raises ``error``."""

    def open_image() -> NoReturn:
        raise error

    return open_image
