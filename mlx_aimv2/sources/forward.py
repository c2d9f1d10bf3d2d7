"""`ForwardReader`: items of something that can only be read forwards, for threads that ask for them by number."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ..errors import ImageError

Item = TypeVar("Item")
MOST_KEPT = 32  # items that were passed over and may still be asked for; about as many threads may decode


class ForwardReader(Generic[Item]):
    """Reads items once, in order, although several threads ask for them in nearly this order.

    Items that are passed over on the way to a requested one are kept for a while. To go back, or far ahead, it starts
    anew.
    """

    def __init__(
        self,
        start: Callable[[int], Iterator[tuple[int, Item]]],
        seeks: bool | Callable[[int, int], bool] = False,
    ) -> None:
        """Take the source; nothing is opened yet.

        Args:
            start: from a number to the items from there on, with their numbers in increasing order. It may begin
                earlier.
            seeks: whether ``start`` skips what lies before the number faster than by reading it; or a function that
                says so, of the number that follows the last one that was read, and the requested number.
        """
        self._start, self._seeks = start, seeks
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
            if number in self._kept:
                return self._kept.pop(number)
            ahead = number - self._next
            if self._items is None or ahead < 0 or (ahead > MOST_KEPT and self._is_far(number)):
                self._items = self._start(number)
            try:
                return self._read(number)
            except BaseException:
                self._items = None  # a generator that failed gives nothing more
                raise

    def _is_far(self, number: int) -> bool:
        return self._seeks(self._next, number) if callable(self._seeks) else self._seeks

    def _read(self, number: int) -> Item:
        assert self._items is not None
        for found, item in self._items:
            self._next = found + 1
            if found == number:
                return item
            if found > number:
                break
            self._kept[found] = item
            if len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        raise ImageError("it cannot be found any more")
