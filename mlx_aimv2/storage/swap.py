"""Replacement of several files of a folder together.

The new files are written whole into a hidden folder beside their places, the swap. Once the swap has its final name,
its files count: they move to their places, last the file that says that the others are whole. At every moment all old
files are there, or all new ones, in the swap or in their places; the next writer completes what a killed run began.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import OutputError
from .atomic import new_folder, sync


@contextlib.contextmanager
def replacing_together(swap: Path, last: str) -> Iterator[Path]:
    """Write files, ``last`` among them, into the folder this yields; then they replace those beside the swap.

    Args:
        swap: a hidden folder in the folder of the files.
        last: the file without which the others do not count.

    Raises:
        OutputError: a file cannot be written.
    """
    if not swap.parent.is_dir():  # `new_folder` would make it
        reason = os.strerror(errno.ENOTDIR if os.path.lexists(swap.parent) else errno.ENOENT)
        raise OutputError(f"{swap.parent / last} cannot be written: {reason}")
    finish_swap(swap, last)
    with new_folder(swap) as partial:
        try:
            yield partial
        except OutputError as error:
            if error.path is None or partial not in error.path.parents:
                raise
            final = swap.parent / error.path.relative_to(partial)
            cause = error.__cause__ or error  # the system's, also for a swap in a swap
            raise OutputError.writing(final, cause) from cause
    finish_swap(swap, last)


def finish_swap(swap: Path, last: str) -> None:
    """Move the files of a whole swap to their places, as far as a killed run has not; raise OutputError."""
    if not swap.is_dir():
        return
    folder = swap.parent
    try:
        names = sorted((path.name for path in swap.iterdir()), key=lambda name: name == last)
        if last in names:
            (folder / last).unlink(missing_ok=True)
            sync(folder)
        for name in names:
            if name == last:
                sync(folder)  # the names of the others are on disk first
            (swap / name).replace(folder / name)
        sync(folder)
        swap.rmdir()
    except OSError as error:
        raise OutputError.writing(folder, error) from error


def swapped(path: Path, swap: Path) -> Path:
    """The place to read a file from: the swap, if the file is still there."""
    return swap / path.name if (swap / path.name).is_file() else path
