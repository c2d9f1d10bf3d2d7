"""The images, folders and tables below a data folder, and the layouts of folders that are not supported."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..sources.extensions import extension_of, kind_of
from ..sources.folder_scan import Rules, identity, scan_folder
from ..sources.ignored import Ignored
from .options import Reading
from .rows import SPLIT_NAMES, natural
from .table_formats import TABLE_ENDINGS
from .unsupported import BOXES, ENDINGS, LISTED, SAVED, hint

PARQUET_SHARD = "-of-"  # in the name of a part, such as train-00000-of-00008.parquet


@dataclass(frozen=True)
class Tree:
    """Everything below a data folder; paths are relative to it, with forward slashes.

    Attributes:
        root: the data folder.
        images: in order. A folder that cannot be read counts as an image, so that opening it names the reason.
        folders: all folders.
        others: tables, and files that show a layout.
        ignored: all other files and folders.
    """

    root: Path
    images: tuple[str, ...]
    folders: tuple[str, ...]
    others: tuple[str, ...]
    ignored: Ignored

    def subfolders(self, folder: str = "") -> list[str]:
        """The folders directly in a folder, in natural order."""
        inside = [path for path in self.folders if parent(path) == folder]
        return sorted(inside, key=lambda path: natural(name(path)))

    def split_folders(self) -> dict[str, str]:
        """The top folders that are named after a split, and the split of each."""
        return {path: SPLIT_NAMES[path.lower()] for path in self.subfolders() if path.lower() in SPLIT_NAMES}

    def below(self, folder: str) -> list[str]:
        """The images at any depth below a folder."""
        return [path for path in self.images if path == folder or path.startswith(f"{folder}/")]

    def notice(self, used: Iterable[str] = ()) -> tuple[str, ...]:
        """A notice of the files that are left out, which are all `others` but ``used``; none if there are none."""
        ignored = self._all_ignored(used)
        return (f"left out {ignored.summary()}",) if ignored else ()

    def instead(self) -> str:
        """The content of the folder in place of images, and how to convert it, as the end of a message."""
        advice = f": {hint}" if (hint := self.conversion_hint()) else ""
        return f": it holds {self._all_ignored().summary() or 'nothing'}{advice}"

    def _all_ignored(self, used: Iterable[str] = ()) -> Ignored:
        unused = Counter(
            (kind_of(extension_of(path)), extension_of(path)) for path in {*self.others} - {*used}
        )
        return self.ignored + Ignored(unused)

    def unsupported_layout(self, folder: str = "") -> str | None:
        """The layout of a folder if it is not supported, and how to convert it; None for any other."""
        folders = {name(path).lower(): path for path in self.subfolders(folder)}
        files = {name(path).lower() for path in self.others if parent(path) == folder}
        if {"dataset_info.json", "dataset_dict.json"} & files:
            return f"holds {SAVED}"
        if "data.mdb" in files:
            return f"is an LMDB database, which is not read: {LISTED}"
        if {"jpegimages", "annotations"} <= set(folders):
            return f"is laid out like Pascal VOC: {BOXES}"
        if annotations := folders.get("annotations"):
            captions = [path for path in self.others if path.startswith(f"{annotations}/")]
            for path in captions:
                if name(path).startswith("captions_") and path.endswith(".json"):
                    return f"is laid out like COCO: name the file of captions, {self.root / path}"
            if not self.below(annotations):
                return f"is laid out like COCO: {BOXES}"
        if {"images", "labels"} <= set(folders) and not self.below(folders["labels"]):
            return f"is laid out like YOLO: {BOXES}"
        return None

    def conversion_hint(self) -> str | None:
        """How to convert the first file of a known kind; None if there is none."""
        for path in self.others:
            if PARQUET_SHARD in path and path.lower().endswith(".parquet"):
                return f"{name(path)} is a part of a data set with the images in it: {LISTED}"
        hints = ((path, hint(Path(path))) for path in self.others)
        return next((f"{name(path)}: {advice}" for path, advice in hints if advice), None)


def read_tree(root: Path, reading: Reading) -> Tree:
    """Search a data folder.

    Args:
        root: the folder.
        reading: what to leave out.

    Raises:
        InputError: the folder cannot be read.
    """
    avoid = []
    for path in reading.avoid:
        with contextlib.suppress(OSError):
            avoid.append(identity(path))
    scan = scan_folder(root, Rules(reading.exclude, TABLE_ENDINGS | ENDINGS, frozenset(avoid)))
    for path, reason in scan.unreadable:
        if Path(path) == root:
            raise InputError(f"{root} cannot be read: {reason}")
    start = len(str(root)) + 1 if str(root) != "." else 0
    start -= str(root).endswith(os.sep)
    images = [path[start:] for path in (*scan.images, *(path for path, _ in scan.unreadable))]
    others = tuple(path[start:] for path in scan.others)
    return Tree(root, tuple(images), scan.folders, others, scan.ignored)


def parent(path: str) -> str:
    """The folder of a path; empty for the data folder."""
    return path.rpartition("/")[0]


def name(path: str) -> str:
    """The last component of a path."""
    return path.rpartition("/")[2]
