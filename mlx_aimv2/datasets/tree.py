"""The folder of some data: its images, its folders, and what is left out of it."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..sources.extensions import ending_of, kind_of
from ..sources.folder_scan import Rules, identity, scan_folder
from ..sources.ignored import LeftOut
from .options import Reading
from .rows import SPLIT_NAMES, natural


@dataclass(frozen=True)
class Tree:
    """Everything below the folder of some data; paths are relative to it, with forward slashes.

    Attributes:
        root: the folder.
        images: in order; a folder that cannot be read stands for itself, so that opening it names the reason.
        folders: all that were searched.
        others: files with the endings that were asked for.
        left_out: the rest.
    """

    root: Path
    images: tuple[str, ...]
    folders: tuple[str, ...]
    others: tuple[str, ...]
    left_out: LeftOut

    def subfolders(self, folder: str = "") -> list[str]:
        """The folders in a folder, in their natural order."""
        found = [path for path in self.folders if parent(path) == folder]
        return sorted(found, key=lambda path: natural(name(path)))

    def split_folders(self) -> dict[str, str]:
        """The folders of the data that are called like a split, and which."""
        return {path: SPLIT_NAMES[path.lower()] for path in self.subfolders() if path.lower() in SPLIT_NAMES}

    def below(self, folder: str) -> list[str]:
        """The images below a folder."""
        return [path for path in self.images if path == folder or path.startswith(f"{folder}/")]

    def notice(self, used: Iterable[str] = ()) -> tuple[str, ...]:
        """What was left out, in words; of `others` all but those that are used."""
        left_out = self._all_but(used)
        return (f"left out {left_out.words()}",) if left_out else ()

    def only(self) -> str:
        """What there is in place of images, as the end of a message."""
        return f": it holds {self._all_but().words() or 'nothing'}"

    def _all_but(self, used: Iterable[str] = ()) -> LeftOut:
        unused = Counter((kind_of(ending_of(path)), ending_of(path)) for path in {*self.others} - {*used})
        return self.left_out + LeftOut(dict(unused))

    def loose(self, folder: str = "") -> list[str]:
        """The images in a folder that lie in none of its folders."""
        return [path for path in self.images if parent(path) == folder and path not in self.folders]


def read_tree(root: Path, reading: Reading, also: frozenset[str] = frozenset()) -> Tree:
    """Search a folder of data.

    Args:
        root: the folder.
        reading: what to leave out.
        also: endings of further files to find.

    Raises:
        InputError: it cannot be read.
    """
    avoid = []
    for path in reading.avoid:
        with contextlib.suppress(OSError):
            avoid.append(identity(path))
    scan = scan_folder(root, Rules(reading.exclude, also, frozenset(avoid)))
    for path, reason in scan.unreadable:
        if Path(path) == root:
            raise InputError(f"{root} cannot be read: {reason}")
    start = len(str(root)) + 1 if str(root) != "." else 0
    start -= str(root).endswith(os.sep)
    images = [path[start:] for path in (*scan.images, *(path for path, _ in scan.unreadable))]
    others = tuple(path[start:] for path in scan.others)
    return Tree(root, tuple(images), scan.folders, others, scan.left_out)


def parent(path: str) -> str:
    """The folder of a path; empty for the one of the data."""
    return path.rpartition("/")[0]


def name(path: str) -> str:
    """The last part of a path."""
    return path.rpartition("/")[2]
