"""`ForwardReader`: items of something that can only be read forwards, for threads that ask for them by number."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from ..errors import ImageError

Item = TypeVar("Item")
MOST_KEPT = 32  # items that were passed over and may still be asked for; about as many threads may decode
MOST_OPEN = 8  # sources at a time


class ForwardReader(Generic[Item]):
    """Reads items once, in order, although several threads ask for them in nearly this order.

    Items that are passed over on the way to a requested one are kept for a while. To go back, or far ahead, it starts
    anew.
    """

    def __init__(
        self,
        start: Callable[[int], Iterator[tuple[int, Item]]],
        seeks: Callable[[int, int], bool] = lambda after, number: False,
        most_kept: int = MOST_KEPT,
    ) -> None:
        """Take the source; nothing is opened yet.

        Args:
            start: from a number to the items from there on, with their numbers in increasing order. It may begin
                earlier.
            seeks: from the number that follows the last one that was read, and the requested number, to whether
                ``start`` skips what lies between faster than by reading it.
            most_kept: how many items are kept that were passed over.
        """
        self._start, self._seeks, self._most_kept = start, seeks, most_kept
        self._lock = threading.Lock()
        self._items: Iterator[tuple[int, Item]] | None = None
        self._next = 0  # the number that follows the last one that was read
        self._kept: dict[int, Item] = {}

    def get(self, number: int) -> Item:
        """Item ``number``.

        Raises:
            ImageError: there is no such item (any more).
        """
        with self._lock:
            _recent.use(self)
            if number in self._kept:
                return self._kept.pop(number)
            ahead = number - self._next
            if (
                self._items is None
                or ahead < 0
                or (ahead > self._most_kept and self._seeks(self._next, number))
            ):
                self._items = self._start(number)
            try:
                return self._read(number)
            except BaseException:
                self._items = None  # a generator that failed gives nothing more
                raise

    def close(self) -> None:
        """Close the source, unless a thread is reading. Asking for an item opens it again."""
        if self._lock.acquire(blocking=False):
            self._items = None
            self._kept.clear()
            self._lock.release()

    def _read(self, number: int) -> Item:
        assert self._items is not None
        for found, item in self._items:
            self._next = found + 1
            if found == number:
                return item
            if found > number:
                break
            self._kept[found] = item
            if len(self._kept) > self._most_kept:
                del self._kept[next(iter(self._kept))]
        raise ImageError("it cannot be found any more")


class _Recent:
    """The readers that were used last; the sources of others are closed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers: OrderedDict[int, weakref.ref[ForwardReader[Any]]] = OrderedDict()

    def use(self, reader: ForwardReader[Any]) -> None:
        """Note that a reader is used."""
        oldest = None
        with self._lock:
            self._readers.pop(id(reader), None)
            self._readers[id(reader)] = weakref.ref(reader)
            if len(self._readers) > MOST_OPEN:
                oldest = self._readers.popitem(last=False)[1]()
        if oldest is not None:
            oldest.close()


_recent = _Recent()
