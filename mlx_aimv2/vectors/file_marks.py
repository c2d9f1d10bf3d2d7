"""Marks of files: place, size, time and content when something was computed from a file."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

CHUNK = 2**20  # bytes read at once
DIGITS = 32  # of the hash of a content: 128 bits


@dataclass(frozen=True)
class FileMark:
    """A file as it was.

    Attributes:
        place: its absolute path without links; empty for what is no file.
        size: in bytes; -1 where it is not known.
        mtime_ns: when it was last written.
        digest: of its content; empty where it is not known.
    """

    place: str = ""
    size: int = -1
    mtime_ns: int = 0
    digest: str = ""

    def is_same_version(self, other: FileMark) -> bool:
        """Whether size and time are known, and those of ``other``."""
        return self.size >= 0 and (self.size, self.mtime_ns) == (other.size, other.mtime_ns)

    def has_content_of(self, other: FileMark) -> bool:
        """Whether the content is that of ``other``, which is read for it, if its size allows it."""
        return self.size == other.size and bool(self.digest) and self.digest == digest_of(other.place)

    def is_there(self) -> bool:
        """Whether there is a file in its place."""
        return current_mark(self.place) is not None


class Places:
    """Where files really are: one place for all the ways to spell it."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._folders: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        """The absolute path of a file without links."""
        folder, base = os.path.split(name)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder or os.curdir)
        path = Path(self._folders[folder], base)
        try:
            return os.path.realpath(path) if path.is_symlink() else str(path)
        except OSError:  # too long a name: opening it will say so
            return str(path)


def current_mark(place: str) -> FileMark | None:
    """What a file is like now, without its content; None if there is none."""
    try:
        found = Path(place).stat()
    except (OSError, ValueError):
        return None
    return FileMark(place, found.st_size, found.st_mtime_ns)


def marked(place: str, before: FileMark | None) -> FileMark:
    """What a file is like, with its content; not known if it has changed since ``before``."""
    digest, now = digest_of(place), current_mark(place)
    if before is None or now is None or not digest or not before.is_same_version(now):
        return FileMark(place)
    return FileMark(place, now.size, now.mtime_ns, digest)


def digest_of(place: str) -> str:
    """The hash of a file's content; empty if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with Path(place).open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError:
        return ""
    return digest.hexdigest()[:DIGITS]
