"""The search of a folder for images, which accounts for everything that it leaves out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from heapq import heappop, heappush
from pathlib import Path

from ..errors import InputError
from .extensions import ending_of, is_image, kind_of
from .ignored import BROKEN_LINK, EXCLUDED, HIDDEN, OWN, REPEATED, SPECIAL, SYSTEM, LeftOut
from .own_files import own_files

SYSTEM_FOLDERS = frozenset(  # of thumbnails, deleted files and programs, in small letters
    {
        "@eadir", "@tmp", "@sharebin", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "~snapshot",  # NAS
        "$recycle.bin", "recycler", "recycled", "system volume information",  # Windows
        "__macosx", "network trash folder", "temporary items",  # macOS
        "lost+found", "node_modules", "site-packages",
    }
)  # fmt: skip
PREVIEWS = (".lrdata", ".lrcat-data")  # endings of Lightroom's folders
LIBRARIES = (
    ".photoslibrary",
    ".photolibrary",
    ".migratedphotolibrary",
    ".aplibrary",
)  # folders of photo programs
ORIGINALS = (
    "originals",
    "masters",
)  # the only folders in a library that hold photos and not what was made of them


@dataclass(frozen=True)
class Rules:
    """What a search takes.

    Attributes:
        exclude: patterns of names, or of paths from the folder that is searched, of files and folders to leave out.
        also: endings of other files to find.
        avoid: folders to leave out, as `identity` gives them.
        asked: whether a file is asked for at all, by its path from the folder; None for all files.
    """

    exclude: tuple[str, ...] = ()
    also: frozenset[str] = frozenset()
    avoid: frozenset[object] = frozenset()
    asked: Callable[[str], bool] | None = None

    def __post_init__(self) -> None:
        if not all(pattern.strip("/") for pattern in self.exclude):
            raise InputError("--exclude needs a pattern, such as 'thumb_*' or 'raw/*'")

    def excludes(self, relative: str) -> bool:
        """Whether a file or folder is left out, by its path from the folder that is searched."""
        name = relative.rpartition("/")[2]
        patterns = [pattern.removeprefix("./").rstrip("/") for pattern in self.exclude]
        return any(fnmatchcase(name, pattern) or fnmatchcase(relative, pattern) for pattern in patterns)

    def excludes_below(self, relative: str) -> bool:
        """Whether a file or one of the folders that it lies in is left out."""
        parts = relative.split("/")
        return any(self.excludes("/".join(parts[:end])) for end in range(1, len(parts) + 1))


@dataclass(frozen=True)
class Scan:
    """What a search found.

    Attributes:
        images: their paths, in order.
        left_out: everything else.
        unreadable: folders that could not be read, and why.
        others: the files with the endings that were to be found also.
        folders: all that were searched, by their paths from the first one.
        empty: names that stand for no image, and what to say of each; they are among the images, and fail there.
    """

    images: tuple[str, ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)
    unreadable: tuple[tuple[str, str], ...] = ()
    others: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    empty: Mapping[str, str] = field(default_factory=dict)

    def notices(self) -> list[str]:
        """What the user should know of the search, in words."""
        return [*self.empty.values(), *([f"left out {self.left_out.words()}"] if self.left_out else [])]


def scan_folder(folder: str | os.PathLike[str], rules: Rules | None = None) -> Scan:
    """All images below a folder: depth first, sorted, with those in linked folders.

    A folder that several links lead to, or that contains the link, is searched once: by its own name where it lies
    below ``folder``. Hidden files and folders are left out, as are those of systems' thumbnails and deleted files,
    of photo programs' previews, and what this program wrote itself; the folder that is named is searched in any case.
    """
    search = _Search(os.fspath(folder), rules or Rules())
    return search.run()


def identity(path: str | os.PathLike[str]) -> object:
    """What is equal for all names of one folder.

    Raises:
        OSError: it is not there.
    """
    status = Path(path).stat()
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def is_system(name: str) -> bool:
    """Whether a folder of this name holds thumbnails, previews, deleted files, or programs."""
    return name.lower() in SYSTEM_FOLDERS or name.lower().endswith(PREVIEWS)


def _is_left_out(name: str, parent: str) -> bool:
    """Whether no search enters a folder of this name in a folder that is called ``parent``."""
    if parent.lower().endswith(LIBRARIES):
        return name.lower() not in ORIGINALS
    return name.startswith(".") or is_system(name)


@dataclass
class _Folder:
    path: str
    relative: str  # from the folder that is searched; empty for that itself
    name: str  # its own, not that of a link to it
    images: list[str] = field(default_factory=list)
    folders: list[_Folder] = field(default_factory=list)
    searched: bool = False


class _Search:
    """One search: the folders themselves first, then what links lead to that was not there."""

    def __init__(self, root: str, rules: Rules) -> None:
        self.root, self.rules = _Folder(root, "", _own_name(root)), rules
        self.seen: set[object] = set()
        self.links: list[tuple[int, str, _Folder]] = []
        self.files: Counter[tuple[str, str]] = Counter()
        self.folders: Counter[tuple[str, str]] = Counter()
        self.unreadable: list[tuple[str, str]] = []
        self.others: list[str] = []

    def run(self) -> Scan:
        for above in _with_parents(self.root.path):
            self._is_new(above)
        self._fill(self.root)
        while self.links:  # the shortest path first: the order of a disk does not matter
            _, _, link = heappop(self.links)
            if self._is_new(link.path):
                self._fill(link, linked=True)
            else:
                self.folders[REPEATED, link.relative] += 1
        searched = list(_in_order(self.root))
        return Scan(
            tuple(image for folder in searched for image in folder.images),
            LeftOut(dict(self.files), dict(self.folders)),
            tuple(sorted(self.unreadable)),
            tuple(sorted(self.others)),
            tuple(folder.relative for folder in searched if folder.relative),
        )

    def _fill(self, start: _Folder, linked: bool = False) -> None:
        """Find everything below a folder but what links lead to."""
        waiting = [start]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder.path) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self.unreadable.append((folder.path, error.strerror or str(error)))
                folder.searched = True
                continue
            own = own_files(folder.path, {entry.name for entry in found})
            if own is None and folder is not self.root:
                self.folders[OWN, folder.relative] += 1
                continue
            folder.searched = True
            for entry in found:
                child = self._entry(folder, entry, own or frozenset())
                if child is not None and (self._is_new(child.path) or not linked):
                    folder.folders.append(child)
                    waiting.append(child)

    def _entry(self, folder: _Folder, entry: os.DirEntry[str], own: frozenset[str]) -> _Folder | None:
        """Take one entry of a folder; the folder that it is, if it is to be searched now."""
        relative = f"{folder.relative}/{entry.name}" if folder.relative else entry.name
        path = entry.path.removeprefix("./")
        if not _is_folder(entry):
            self._file(folder, entry, relative, path, own)
            return None
        if _is_left_out(entry.name, folder.name):
            self.folders[SYSTEM, entry.name] += 1
        elif self.rules.excludes(relative):
            self.folders[EXCLUDED, relative] += 1
        elif self.rules.avoid and _is_avoided(path, self.rules):
            self.folders[OWN, relative] += 1
        elif entry.is_symlink():
            child = _Folder(path, relative, _own_name(path))
            folder.folders.append(child)  # its place; what is in it comes later
            heappush(self.links, (relative.count("/"), relative, child))
        else:
            return _Folder(path, relative, entry.name)
        return None

    def _file(
        self, folder: _Folder, entry: os.DirEntry[str], relative: str, path: str, own: frozenset[str]
    ) -> None:
        ending = ending_of(entry.name)
        if self.rules.asked is not None and not self.rules.asked(relative):
            return
        if entry.name.startswith("."):
            self.files[HIDDEN, ""] += 1
        elif self.rules.excludes(relative):
            self.files[EXCLUDED, ""] += 1
        elif entry.name in own:
            self.files[OWN, ""] += 1
        elif not _is_file(entry) and (
            not entry.is_symlink() or _is_there(entry.path)
        ):  # reading may never end
            self.files[SPECIAL, ""] += 1
        elif is_image(entry.name):  # a broken link too: opening it says so
            folder.images.append(path)
        elif not _is_file(entry):
            self.files[BROKEN_LINK, ""] += 1
        elif ending in self.rules.also:
            self.others.append(path)
        else:
            self.files[kind_of(ending), ending] += 1

    def _is_new(self, path: str) -> bool:
        """Whether a folder was not met before; from now on it was."""
        try:
            known = identity(path)
        except OSError:  # reading it will say so
            return True
        new = known not in self.seen
        self.seen.add(known)
        return new


def _own_name(path: str) -> str:
    return Path(os.path.realpath(path)).name


def _in_order(root: _Folder) -> Iterator[_Folder]:
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        if folder.searched:
            yield folder
        waiting += sorted(folder.folders, key=lambda child: child.relative, reverse=True)


def _with_parents(path: str) -> Sequence[str]:
    """A folder and all that it lies in, without links."""
    here = Path(os.path.realpath(path))
    return list(map(str, (here, *here.parents)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to where nobody may look
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except OSError:  # a link to itself
        return False


def _is_avoided(path: str, rules: Rules) -> bool:
    try:
        return identity(path) in rules.avoid
    except OSError:
        return False
