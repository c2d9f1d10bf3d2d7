"""The state of a file with many images: a file that changes after its images were listed has other images."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from ..errors import ChangedFileError, ImageError


class FileState(NamedTuple):
    """The state of a file.

    Attributes:
        size: in bytes.
        mtime_ns: the time of the last write.
    """

    size: int
    mtime_ns: int


def state_of(file: str | int) -> FileState:
    """The state of a file, by its path or the number of an open file.

    Raises:
        ImageError: it is not a regular file.
        OSError: it cannot be read.
    """
    status = os.stat(file)  # noqa: PTH116 - of a number too
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe waits for a writer
        raise ImageError("not a regular file")
    return FileState(status.st_size, status.st_mtime_ns)


def check_unchanged(file: str | int, before: FileState, noun: str) -> None:
    """Raise ChangedFileError if a file, called ``noun`` in the message, is not in the state of ``before``."""
    if state_of(file) != before:
        raise ChangedFileError(f"the {noun} has changed since its images were listed: run this again")
