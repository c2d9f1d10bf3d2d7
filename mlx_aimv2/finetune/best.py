"""The best epoch on disk: its files are swapped for those of a better one, and one of the two is there all the time.

The better one is written whole into a hidden folder beside them. When that has got its name, `SWAP`, it is what
counts: its files move to their places, last `task.json`, which says what they are for. Parts of two epochs are never
taken for one, and a run that goes on finishes what a killed one had begun.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..adapters.task import SWAP, TASK
from ..checkpoints.atomic import new_folder
from ..errors import OutputError


@contextlib.contextmanager
def new_best(folder: Path) -> Iterator[Path]:
    """Write all files, `task.json` among them, into the folder this yields; then they replace those in ``folder``.

    Raises:
        OutputError: a file cannot be written; what was there before is as it was.
    """
    finish_swap(folder)
    partial = folder / SWAP
    try:
        with new_folder(partial) as partial:
            yield partial
    except OutputError as error:  # names the place that was meant
        raise OutputError(str(error).replace(f"{partial}{os.sep}", f"{folder}{os.sep}")) from error
    finish_swap(folder)


def finish_swap(folder: Path) -> None:
    """Move what was written whole to its place, as far as a killed run has not done so.

    Raises:
        OutputError: a file cannot be moved.
    """
    swap = folder / SWAP
    if not swap.is_dir():
        return
    try:
        names = sorted((path.name for path in swap.iterdir()), key=lambda name: name == TASK)
        if TASK in names:
            (folder / TASK).unlink(missing_ok=True)
        for name in names:
            (swap / name).replace(folder / name)
        swap.rmdir()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error


def drop_swap(folder: Path) -> None:
    """Remove what another run, whose files are gone, had not moved to its place."""
    shutil.rmtree(folder / SWAP, ignore_errors=True)
