"""Which images, or texts, a folder of embeddings holds: known by where a file really is, and what its content was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from .file_marks import FileMark, Places, current_mark, marked


@dataclass(slots=True)
class Row:
    """A vector that the folder holds, or that waits to be written.

    Attributes:
        key: what tells its file, or text, apart.
        name: of its image or text, as it was given.
        mark: of the file; None where a version wrote it that kept none, a future while its content is read.
        shard: the file it is in; empty while it waits.
        number: of the row there, or among those that wait.
    """

    key: str
    name: str
    mark: FileMark | Future[FileMark] | None
    shard: str = ""
    number: int = 0


class RowIndex:
    """The rows that count, and what has become of their files.

    Attributes:
        dirty: shards that hold rows which no longer count, or marks that are out of date.
        changed: images whose content is another now, as `remaining` found.
    """

    def __init__(self, texts: bool, written_ns: Callable[[str], int]) -> None:
        """Hold nothing yet.

        Args:
            texts: the names are texts, not files.
            written_ns: when a shard was written.
        """
        self.dirty: set[str] = set()
        self.changed = 0
        self._texts, self._written_ns = texts, written_ns
        self._places, self._pool = Places(), ThreadPoolExecutor(1)
        self._rows: dict[str, Row] = {}
        self._keys: dict[str, str] = {}  # by names
        self._seen: dict[str, FileMark | None] = {}
        self._stale: list[Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __contains__(self, row: Row) -> bool:
        return self._rows.get(row.key) is row

    def find(self, name: str) -> Row | None:
        """The row of an image or text."""
        return self._rows.get(self._key(name))

    def new(self, name: str, number: int) -> Row:
        """A row that waits as the number so and so, in place of an earlier one of the same file."""
        key = self._key(name)
        before = self._seen.get(key) or current_mark(key)
        mark = FileMark() if self._texts else self._pool.submit(marked, key, before)
        earlier = self._rows.get(key)
        if earlier is not None:
            self.drop(earlier)
        taken = self._keys.get(name, key) != key  # the name is that of another file, from another folder
        shown = earlier.name if earlier is not None else key if taken else name
        return self._put(Row(key, shown, mark, "", number))

    def load(self, name: str, mark: FileMark | None, shard: str, number: int) -> None:
        """Take a row of a shard; it counts instead of one of the same file that was loaded before."""
        key = self._loaded_key(name, mark)
        if key in self._rows:
            self.drop(self._rows[key])
        self._put(Row(key, name, mark, shard, number))

    def remaining(self, names: Iterable[str]) -> list[str]:
        """Those of ``names`` that have to be embedded; of one file that is named in several ways, the first."""
        left, asked = [], set()
        for name in names:
            key = self._key(name)
            if key not in asked and not self._is_done(key, name):
                left.append(name)
            asked.add(key)
        return left

    def gone(self) -> list[Row]:
        """The rows of images that are no longer where they were."""
        known = [(row, row.mark) for row in self if isinstance(row.mark, FileMark) and row.mark.place]
        return [row for row, mark in known if not mark.is_there()]

    def drop(self, row: Row) -> None:
        """Let a row count no longer."""
        del self._rows[row.key]
        self._keys.pop(row.name, None)
        if row.shard:
            self.dirty.add(row.shard)

    def drop_stale(self) -> None:
        """Let no row count whose file has changed, and which none has taken the place of."""
        for row in self._stale:
            if row in self:
                self.drop(row)

    def _key(self, name: str) -> str:
        """What tells files, or texts, apart."""
        return f"\0{name}" if self._texts else self._places(name)

    def _is_done(self, key: str, name: str) -> bool:
        row = self._rows.get(key)
        if self._texts:
            return row is not None
        now = self._seen[key] = current_mark(key)
        if row is None:
            return self._was_moved(key, name, now)
        if now is None:
            return False  # who embeds it will say that it is not there
        if row.mark is None:
            done = now.mtime_ns <= self._written_ns(row.shard)
        else:
            done = isinstance(row.mark, Future) or self._is_same(row, row.mark, now)
        if not done:
            self._stale.append(row)
            self.changed += 1
        return done

    def _is_same(self, row: Row, mark: FileMark, now: FileMark) -> bool:
        """Whether a file is what a row was made from; what is new about its place and time is kept."""
        if not mark.is_same_version(now) and not mark.has_content_of(now):
            return False
        known = replace(now, digest=mark.digest)
        if known != mark:
            row.mark = known
            self.dirty |= {row.shard} - {""}
        return True

    def _was_moved(self, key: str, name: str, now: FileMark | None) -> bool:
        """Whether an image of this name is known from another place, where it no longer is."""
        row = self._rows.get(self._keys.get(name, ""))
        if row is None or now is None or not isinstance(row.mark, FileMark) or row.mark.is_there():
            return False
        if not self._is_same(row, row.mark, now):
            return False
        del self._rows[row.key]
        row.key = key
        self._put(row)
        return True

    def _put(self, row: Row) -> Row:
        self._rows[row.key], self._keys[row.name] = row, row.key
        return row

    def _loaded_key(self, name: str, mark: FileMark | None) -> str:
        if mark is not None and mark.place:
            return mark.place
        if self._texts or mark is not None:
            return f"\0{name}"
        place = self._places(name)
        return place if current_mark(place) is not None else f"?{name}"
