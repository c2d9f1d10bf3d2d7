"""`errors.jsonl` in a folder of shards: the images that have no vector, and why.

A line is appended when an image fails. Lines are removed in one step when a run begins or ends: those of images that
have a vector now, that are gone, or that this run tries again. So an image has one line at most, also after a kill.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OutputError
from ..storage.atomic import replacing
from .shard_rows import status_of


@dataclass(frozen=True)
class Failure:
    """An image that has no vector.

    Attributes:
        path: of the image, as the user wrote it.
        kind: the class of the error.
        reason: its message.
        key: identifies the file, or the part of it.
        state: size, and times of the last write and change in ns, of the file; None if it is not known.
    """

    path: str
    kind: str
    reason: str
    key: str
    state: tuple[int, int, int] | None = None

    @property
    def is_gone(self) -> bool:
        """Whether the file is no longer in its place; always false for what has no file."""
        place = self.key.partition("\0")[0]
        return bool(place) and state_of(self.key) is None

    def line(self) -> bytes:
        """The line of the file."""
        file, _, part = self.key.partition("\0")
        entry: dict[str, Any] = {"path": self.path, "kind": self.kind, "reason": self.reason, "file": file}
        if part and file:
            entry["part"] = part
        if self.state is not None:
            entry |= dict(zip(("size", "mtime_ns", "ctime_ns"), self.state, strict=True))
        return f"{json.dumps(entry)}\n".encode()

    @classmethod
    def of(cls, line: bytes) -> Failure:
        """The failure in a line; raise ValueError, KeyError, TypeError or OverflowError for another line."""
        entry = json.loads(line)
        path, file = str(entry["path"]), str(entry["file"])
        key = f"{file}\0{entry['part']}" if "part" in entry else file or f"\0{path}"
        state = (
            (int(entry["size"]), int(entry["mtime_ns"]), int(entry["ctime_ns"])) if "size" in entry else None
        )
        return cls(path, str(entry["kind"]), str(entry["reason"]), key, state)


def state_of(key: str) -> tuple[int, int, int] | None:
    """Size, and times of the last write and change, of the file of an item now; None if there is no such file."""
    status = status_of(key.partition("\0")[0])
    return None if status is None else (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Failures:
    """The failures of a folder, by the keys of their images."""

    def __init__(self, path: Path, others: Iterable[Path] = ()) -> None:
        """Read the failures of earlier runs.

        Args:
            path: of the file to write.
            others: files of ranks, whose failures belong to this file too.
        """
        self._path = path
        self._failures: dict[str, Failure] = {}
        self._on_disk: list[str] = []  # keys, line by line; "" for a line that cannot be read
        for file in (*others, path):
            self._on_disk = []
            for line in _lines(file):
                try:
                    failure = Failure.of(line)
                except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                    self._on_disk.append("")
                    continue
                self._failures[failure.key] = failure
                self._on_disk.append(failure.key)

    def __iter__(self) -> Iterator[Failure]:
        return iter(self._failures.values())

    def is_known(self, key: str) -> bool:
        """Whether an image failed before, and its file has not changed since."""
        failure = self._failures.get(key)
        return failure is not None and failure.state is not None and failure.state == state_of(key)

    def keep(self, is_valid: Callable[[Failure], bool]) -> None:
        """Remove the failures for which ``is_valid`` is false, also from the disk; raise OutputError."""
        self._failures = {key: each for key, each in self._failures.items() if is_valid(each)}
        if self._on_disk == list(self._failures):
            return
        if self._failures:
            with replacing(self._path) as partial:
                partial.write_bytes(b"".join(each.line() for each in self._failures.values()))
        else:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError.writing(self._path, error) from error
        self._on_disk = list(self._failures)

    def add(self, failure: Failure) -> None:
        """Add a failure, also on the disk; raise OutputError."""
        if self._failures.get(failure.key) == failure:
            return
        replaces = failure.key in self._failures
        self._failures[failure.key] = failure
        if replaces:
            self._on_disk = [*self._on_disk, ""]
            self.keep(lambda each: True)
            return
        line = failure.line()
        try:
            with self._path.open("ab", buffering=0) as file:
                if file.write(line) < len(line):  # a disk that is nearly full takes a part without an error
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise OutputError.writing(self._path, error) from error
        self._on_disk.append(failure.key)


def _lines(path: Path) -> list[bytes]:
    with contextlib.suppress(OSError):
        return path.read_bytes().splitlines(keepends=False)
    return []
