"""Search of a folder for images, with counts of everything that it ignores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from heapq import heappop, heappush
from pathlib import Path

from ..errors import InputError
from .extensions import extension_of, is_image, kind_of
from .ignored import BROKEN_LINK, EXCLUDED, HIDDEN, OWN, REPEATED, SPECIAL, SYSTEM, Ignored, own_files

SYSTEM_FOLDERS = frozenset(  # of thumbnails, deleted files and programs, in lower case
    {
        "@eadir", "@tmp", "@sharebin", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "~snapshot",  # NAS
        "$recycle.bin", "recycler", "recycled", "system volume information",  # Windows
        "__macosx", "network trash folder", "temporary items",  # macOS
        "lost+found", "node_modules", "site-packages",
    }
)  # fmt: skip
PREVIEWS = (".lrdata", ".lrcat-data")  # suffixes of Lightroom's folders
LIBRARIES = (".photoslibrary", ".photolibrary", ".migratedphotolibrary", ".aplibrary")  # of photo programs
ORIGINALS = ("originals", "masters")  # the folders of a library with photos; the others hold derived images


@dataclass(frozen=True)
class Rules:
    """Which files and folders a search takes.

    Attributes:
        exclude: patterns of names, or of paths relative to the searched folder, of files and folders to ignore.
        also: extensions of other files to find.
        avoid: folders to ignore, as values of `identity`.
        many: suffixes, in lower case, of the names of files with many images, which are found among the images.
        accepts: from a path relative to the searched folder to whether the file counts at all; None for all files.
    """

    exclude: tuple[str, ...] = ()
    also: frozenset[str] = frozenset()
    avoid: frozenset[object] = frozenset()
    many: tuple[str, ...] = ()
    accepts: Callable[[str], bool] | None = None

    def __post_init__(self) -> None:
        if not all(pattern.strip("/") for pattern in self.exclude):
            raise InputError("--exclude needs a pattern, such as 'thumb_*' or 'raw/*'")

    def finds(self, name: str) -> bool:
        """Whether a file has the name of an image or of a file with many images, and is not hidden."""
        return is_image(name) or (not name.startswith(".") and name.lower().endswith(self.many))

    def excludes(self, relative: str) -> bool:
        """Whether the patterns exclude a file or folder, by its path relative to the searched folder."""
        name = relative.rpartition("/")[2]
        patterns = [pattern.removeprefix("./").rstrip("/") for pattern in self.exclude]
        return any(fnmatchcase(name, pattern) or fnmatchcase(relative, pattern) for pattern in patterns)

    def excludes_below(self, relative: str) -> bool:
        """Whether the patterns exclude a file or one of its parent folders."""
        parts = relative.split("/")
        return any(self.excludes("/".join(parts[:end])) for end in range(1, len(parts) + 1))


@dataclass(frozen=True)
class Scan:
    """The result of a search.

    Attributes:
        images: their paths, in order.
        ignored: everything else.
        unreadable: folders that cannot be read, and the reason of each.
        others: the files with the extensions of `Rules.also`.
        folders: all searched folders, by their paths relative to the first.
        empty: names of the user without an image, and a message for each. They are among the images too.
    """

    images: tuple[str, ...] = ()
    ignored: Ignored = field(default_factory=Ignored)
    unreadable: tuple[tuple[str, str], ...] = ()
    others: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    empty: Mapping[str, str] = field(default_factory=dict)

    def notices(self) -> list[str]:
        """Messages for the user about empty names and ignored files."""
        return [*self.empty.values(), *([f"left out {self.ignored.summary()}"] if self.ignored else [])]


def scan_folder(folder: str | os.PathLike[str], rules: Rules | None = None) -> Scan:
    """All images below a folder, depth first, in sorted order; links to folders are followed.

    A folder with several links, or a link to a parent folder, is searched once: by its own name if it lies below
    ``folder``. Hidden files and folders are ignored, and folders of thumbnails, previews and deleted files, and the
    output of this program. ``folder`` itself is searched in any case.
    """
    return _Search(os.fspath(folder), rules or Rules()).run()


def identity(path: str | os.PathLike[str]) -> object:
    """A value that is equal for all names of one folder; raise OSError if there is no such folder."""
    status = Path(path).stat()
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(path)


def is_system(name: str) -> bool:
    """Whether a folder of this name holds thumbnails, previews, deleted files, or programs."""
    return name.lower() in SYSTEM_FOLDERS or name.lower().endswith(PREVIEWS)


def holds(check: Callable[[], bool]) -> bool:
    """The result of a check of the file system; False if the check fails, as for a link to itself."""
    try:
        return check()
    except OSError:
        return False


@dataclass
class _Folder:
    path: str
    relative: str  # to the searched folder; empty for the searched folder
    name: str  # its own, not the name of a link to it
    images: list[str] = field(default_factory=list)
    folders: list[_Folder] = field(default_factory=list)
    searched: bool = False


class _Search:
    """One search: first the folders themselves, then linked folders that were not among them."""

    def __init__(self, root: str, rules: Rules) -> None:
        self.root, self.rules = _Folder(root, "", _own_name(root)), rules
        self.seen: set[object] = set()
        self.links: list[tuple[int, str, _Folder]] = []
        self.ignored = Ignored()
        self.unreadable: list[tuple[str, str]] = []
        self.others: list[str] = []

    def run(self) -> Scan:
        root = Path(os.path.realpath(self.root.path))
        for folder in (root, *root.parents):
            self._is_new(str(folder))
        self._fill(self.root)
        while self.links:  # the shortest path first, whatever the order on the disk
            _, _, link = heappop(self.links)
            if self._is_new(link.path):
                self._fill(link, linked=True)
            else:
                self.ignored.folders[REPEATED, link.relative] += 1
        searched = list(_in_order(self.root))
        return Scan(
            tuple(image for folder in searched for image in folder.images),
            self.ignored,
            tuple(sorted(self.unreadable)),
            tuple(sorted(self.others)),
            tuple(folder.relative for folder in searched if folder.relative),
        )

    def _fill(self, start: _Folder, linked: bool = False) -> None:
        """Find everything below a folder, except in linked folders."""
        waiting = [start]
        while waiting:
            folder = waiting.pop()
            folder.searched = True
            try:
                with os.scandir(folder.path) as entries:
                    children = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self.unreadable.append((folder.path, error.strerror or str(error)))
                continue
            own = own_files(folder.path, {entry.name for entry in children})
            if own is None and folder is not self.root:
                self.ignored.folders[OWN, folder.relative] += 1
                folder.searched = False
                continue
            for entry in children:
                relative = f"{folder.relative}/{entry.name}" if folder.relative else entry.name
                if not holds(entry.is_dir):
                    self._add_file(folder, entry, relative, own or frozenset())
                    continue
                child = self._subfolder(folder, entry, relative)
                if child is not None and (self._is_new(child.path) or not linked):
                    folder.folders.append(child)
                    waiting.append(child)

    def _subfolder(self, folder: _Folder, entry: os.DirEntry[str], relative: str) -> _Folder | None:
        """A subfolder to search now; None for an ignored folder, or a link, which is searched later."""
        path, name = entry.path.removeprefix("./"), entry.name
        if folder.name.lower().endswith(LIBRARIES):
            is_ignored = name.lower() not in ORIGINALS
        else:
            is_ignored = name.startswith(".") or is_system(name)
        if is_ignored:
            self.ignored.folders[SYSTEM, name] += 1
        elif self.rules.excludes(relative):
            self.ignored.folders[EXCLUDED, relative] += 1
        elif self.rules.avoid and holds(lambda: identity(path) in self.rules.avoid):
            self.ignored.folders[OWN, relative] += 1
        elif entry.is_symlink():
            child = _Folder(path, relative, _own_name(path))
            folder.folders.append(child)  # its place in the order
            heappush(self.links, (relative.count("/"), relative, child))
        else:
            return _Folder(path, relative, name)
        return None

    def _add_file(self, folder: _Folder, entry: os.DirEntry[str], relative: str, own: frozenset[str]) -> None:
        path, extension = entry.path.removeprefix("./"), extension_of(entry.name)
        is_file = holds(entry.is_file)
        if self.rules.accepts is not None and not self.rules.accepts(relative):
            return
        if entry.name.startswith("."):
            self.ignored.files[HIDDEN, ""] += 1
        elif self.rules.excludes(relative):
            self.ignored.files[EXCLUDED, ""] += 1
        elif entry.name in own:
            self.ignored.files[OWN, ""] += 1
        elif not is_file and (not entry.is_symlink() or holds(Path(path).exists)):  # reading may never end
            self.ignored.files[SPECIAL, ""] += 1
        elif self.rules.finds(entry.name):  # also a broken link: opening it reports the reason
            folder.images.append(path)
        elif not is_file:
            self.ignored.files[BROKEN_LINK, ""] += 1
        elif extension in self.rules.also:
            self.others.append(path)
        else:
            self.ignored.files[kind_of(extension), extension] += 1

    def _is_new(self, path: str) -> bool:
        """Whether this is the first call for a folder."""
        try:
            key = identity(path)
        except OSError:  # reading the folder reports it
            return True
        new = key not in self.seen
        self.seen.add(key)
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
