"""The rows of a folder of shards: which images or texts have a vector, and whether their files have changed.

A row is known by the path of its file without links. A file has changed if its size or time differs and the hash of
its content does too. Several rows may be parts of one file, such as an archive or a video: they change with it. Its
size and time decide, because a hash would need a second reading.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .checksums import sha256_of

DIGITS = 32  # of the hash of a content: 128 bits


@dataclass(frozen=True)
class FileMark:
    """The state of a file when its vector was computed.

    Attributes:
        place: the absolute path without links; empty for a text.
        size: in bytes; -1 if it is not known.
        mtime_ns: the time of the last write.
        digest: a hash of the content; empty if it is not known. Of a part, its version.
        part: what the item is in its file, such as the name in an archive; empty for the whole file.
    """

    place: str = ""
    size: int = -1
    mtime_ns: int = 0
    digest: str = ""
    part: str = ""

    @property
    def key(self) -> str:
        """Identifies the file, or the part of it."""
        return f"{self.place}\0{self.part}" if self.part else self.place

    def is_same_version(self, other: FileMark) -> bool:
        """Whether size and time are known, and equal to those of ``other``, and so is the version of a part."""
        same_part = not self.part or self.digest == other.digest
        return self.size >= 0 and (self.size, self.mtime_ns) == (other.size, other.mtime_ns) and same_part


def status_of(place: str) -> os.stat_result | None:
    """What the system says of a file now; None if there is no such file, or no place."""
    if not place:
        return None
    try:
        return Path(place).stat()
    except (OSError, ValueError):
        return None


def current_mark(place: str) -> FileMark | None:
    """The state of a file now, without its content; None if there is no such file, or no place."""
    status = status_of(place)
    return None if status is None else FileMark(place, status.st_size, status.st_mtime_ns)


def complete_mark(place: str, before: FileMark | None) -> FileMark:
    """The state of a file with its content; the state is not known if the file has changed since ``before``."""
    digest, now = digest_of(place), current_mark(place)
    if before is None or now is None or not digest or not before.is_same_version(now):
        return FileMark(place)
    return replace(now, digest=digest)


def digest_of(place: str) -> str:
    """The hash of a file's content; empty if the file cannot be read."""
    try:
        return sha256_of(Path(place))[:DIGITS]
    except OSError:
        return ""


@dataclass(slots=True)
class Row:
    """A vector in a shard, or one that waits to be written.

    Attributes:
        key: identifies the file, or the text.
        name: of the image or text, as the user wrote it.
        mark: of the file; None in a shard of an old version; a future while the content is read.
        position: in the input; rows are read in this order.
        shard: the file name of the shard; empty while the row waits.
        number: of the row in the shard.
        vector: while the row waits.
    """

    key: str
    name: str
    mark: FileMark | Future[FileMark] | None
    position: int
    shard: str = ""
    number: int = 0
    vector: np.ndarray | None = None


class RowIndex:
    """The valid rows of a folder of shards.

    Attributes:
        dirty: shards with rows that are no longer valid, or with marks that are out of date.
        changed: how many images have a new content, as `remaining` has found. Without a mark, as in shards of an old
            version, an image counts as changed if it is newer than its shard.
    """

    def __init__(self, texts: bool, written_ns: Callable[[str], int]) -> None:
        """Start without rows.

        Args:
            texts: the names are texts, not files.
            written_ns: from the file name of a shard to the time of its last write.
        """
        self.dirty: set[str] = set()
        self.changed = 0
        self._texts, self._written_ns = texts, written_ns
        self._pool = ThreadPoolExecutor(1)
        self._rows: dict[str, Row] = {}
        self._keys: dict[str, str] = {}  # by names
        self._seen: dict[str, FileMark | None] = {}
        self._positions: dict[str, int] = {}  # of the items of this run, by keys
        self._next = 0  # the position behind all rows
        self._stale: list[Row] = []
        self._versions: dict[str, str] = {}  # of parts, by keys
        self._files: dict[str, str | None] = {}  # by names, where the file has another name
        self._folders: dict[str, str] = {}  # without links, by paths as the user wrote them

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __contains__(self, row: Row) -> bool:
        return self._rows.get(row.key) is row

    def get(self, key: str) -> Row | None:
        """The row of a key."""
        return self._rows.get(key)

    def rows_of(self, names: Iterable[str]) -> list[tuple[str, Row]]:
        """The names that have a vector, in their order, with their rows."""
        pairs = ((name, self._rows.get(self.key(name))) for name in names)
        return [(name, row) for name, row in pairs if row is not None]

    def new(self, name: str, vector: np.ndarray) -> Row:
        """Add a row that waits; it replaces an earlier row of the same file, and takes its position."""
        key = self.key(name)
        before = self._seen.get(key) or self._mark(key)
        mark: FileMark | Future[FileMark] | None
        if not _place_of(key):
            mark = FileMark()
        elif _part_of(key):
            now = self._mark(key)
            same = before is not None and now is not None and before.is_same_version(now)
            mark = before if same else FileMark(_place_of(key), part=_part_of(key))
        else:
            mark = self._pool.submit(complete_mark, key, before)
        earlier = self._rows.get(key)
        position = self._positions.get(key, self._next)
        if earlier is not None:
            self.drop(earlier)
            name, position = earlier.name, earlier.position
        elif self._keys.get(name, key) != key:  # a file of the same name, relative to another folder
            name = key.replace("\0", "")
        return self._put(Row(key, name, mark, position, vector=vector))

    def load(
        self, name: str, mark: FileMark | None, shard: str, number: int, position: int | None = None
    ) -> None:
        """Add a row of a shard; it replaces a row of the same file that was loaded before.

        Args:
            name: of the image or text.
            mark: of its file; None in a shard of an old version.
            shard: the file name of the shard.
            number: of the row in the shard.
            position: in the input; None in a shard of an old version, whose rows are in order.
        """
        if mark is not None and mark.place:
            key = mark.key
        elif self._texts or mark is not None:
            key = f"\0{name}"
        else:
            place = self._place(name)
            key = place if current_mark(place) is not None else f"?{name}"
        if key in self._rows:
            self.drop(self._rows[key])
        self._put(Row(key, name, mark, self._next if position is None else position, shard, number))

    def remaining(
        self,
        names: Sequence[str],
        files: Sequence[str | None] | None = None,
        versions: Sequence[str] = (),
        of: range | None = None,
    ) -> list[int]:
        """The indexes of the items that need a vector; of several names of one item, the first.

        Args:
            names: of the images, or the texts.
            files: the path of the file that holds item k, or None for an item without a file, such as an address.
                If this is not ``names[k]``, the item is a part of the file, and the name says which. Without
                ``files``, every name is the path of a file.
            versions: what else item k depends on, if it is a part; empty for nothing.
            of: the indexes to consider; None for all.
        """
        mine = range(len(names)) if of is None else of
        files = names if files is None else files
        self._files.update((name, file) for name, file in zip(names, files, strict=True) if file != name)
        keys = [self.key(name) for name in names]
        self._versions = {key: version for key, version in zip(keys, versions, strict=False) if version}
        start = self._start_of(keys)
        remaining: list[int] = []
        self._positions = {}
        for number, (key, name) in enumerate(zip(keys, names, strict=True)):
            if key in self._positions:
                continue
            self._positions[key] = start + number
            if number in mine and not self._is_done(key, name):
                remaining.append(number)
        return remaining

    def _start_of(self, keys: Sequence[str]) -> int:
        """The position of the first item of a list: as in the earlier run over this list, or behind all rows."""
        rows = [(self._rows[key].position, number) for number, key in enumerate(keys) if key in self._rows]
        position, number = max(rows, default=(self._next, 0))
        start, taken = position - number, {row.position: row.key for row in self}
        fits = start >= 0 and all(taken.get(start + n, key) == key for n, key in enumerate(keys))
        return start if fits else self._next

    def is_unchanged(self, key: str) -> bool:
        """Whether the file of an item is as it was when `remaining` looked at it."""
        before, now = self._seen.get(key), self._mark(key)
        return before is not None and now is not None and before.is_same_version(now)

    def gone(self) -> list[Row]:
        """The rows of images that are no longer in their places."""
        rows = [(row, row.mark.place) for row in self if isinstance(row.mark, FileMark) and row.mark.place]
        there = {place: current_mark(place) is not None for place in {place for _, place in rows}}
        return [row for row, place in rows if not there[place]]

    def drop(self, row: Row) -> None:
        """Remove a row."""
        del self._rows[row.key]
        self._keys.pop(row.name, None)
        if row.shard:
            self.dirty.add(row.shard)

    def drop_stale(self) -> None:
        """Remove the rows of changed files that have no new row."""
        for row in self._stale:
            if row in self:
                self.drop(row)

    def drop_outdated(self, keys: Iterable[str]) -> None:
        """Remove the rows of those of these items whose file has changed since."""
        for row in [self._rows[key] for key in keys if key in self._rows]:
            now = self._mark(row.key)
            if now is not None and isinstance(row.mark, FileMark) and not row.mark.is_same_version(now):
                self.drop(row)

    def key(self, name: str) -> str:
        """Identifies the file of a name, the part of a file, or a text."""
        file = None if self._texts else self._files.get(name, name)
        if file is None:
            return f"\0{name}"
        place = self._place(file)
        return place if file == name else FileMark(place, part=name.removeprefix(file)).key

    def _mark(self, key: str) -> FileMark | None:
        """The state of an item's file now; None if there is no such file."""
        mark, part = current_mark(_place_of(key)), _part_of(key)
        return (
            replace(mark, part=part, digest=self._versions.get(key, ""))
            if mark is not None and part
            else mark
        )

    def _place(self, name: str) -> str:
        """The absolute path of a file without links."""
        folder, base = os.path.split(name)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder or os.curdir)
        path = Path(self._folders[folder], base)
        try:
            return os.path.realpath(path) if path.is_symlink() else str(path)
        except OSError:  # the name is too long: opening the file reports it
            return str(path)

    def _is_done(self, key: str, name: str) -> bool:
        row = self._rows.get(key)
        if not _place_of(key):
            return row is not None
        now = self._seen[key] = self._mark(key)
        if row is None:
            return self._has_moved(key, name, now)
        if now is None:
            return False  # the embedder reports the missing file
        if row.mark is None:
            done = now.mtime_ns <= self._written_ns(row.shard)
        else:
            done = isinstance(row.mark, Future) or self._is_same(row, row.mark, now)
        if not done:
            self._stale.append(row)
            self.changed += 1
        return done

    def _is_same(self, row: Row, mark: FileMark, now: FileMark) -> bool:
        """Whether a file has the content of a row; a new place and time are noted in the row."""
        same_content = mark.is_same_version(now) or (
            not mark.part and mark.size == now.size and mark.digest and mark.digest == digest_of(now.place)
        )
        if not same_content:
            return False
        known = replace(now, digest=mark.digest)
        if known != mark:
            row.mark = known
            self.dirty |= {row.shard} - {""}
        return True

    def _has_moved(self, key: str, name: str, now: FileMark | None) -> bool:
        """Whether the same name and content are known from another place, where the file no longer is."""
        row = self._rows.get(self._keys.get(name, ""))
        if row is None or now is None or not isinstance(row.mark, FileMark):
            return False
        if current_mark(row.mark.place) is not None or not self._is_same(row, row.mark, now):
            return False
        del self._rows[row.key]
        row.key = key
        self._put(row)
        return True

    def _put(self, row: Row) -> Row:
        self._next = max(self._next, row.position + 1)
        self._rows[row.key], self._keys[row.name] = row, row.key
        return row


def _place_of(key: str) -> str:
    return key.partition("\0")[0]


def _part_of(key: str) -> str:
    return key.partition("\0")[2]
