"""The best epoch on disk: its files are swapped for those of a better one, and one of the two is there all the time.

The better one is written whole into a hidden folder beside them. When that has got its name, `SWAP`, it is what
counts: its files move to their places, last `task.json`, which says what they are for. Parts of two epochs are never
taken for one, and a run that goes on finishes what a killed one had begun.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..adapters.task import SWAP, TASK
from ..storage import swap
from ..storage.swap import replacing_together


@contextlib.contextmanager
def new_best(folder: Path) -> Iterator[Path]:
    """Write all files, `task.json` among them, into the folder this yields; then they replace those in ``folder``.

    Raises:
        OutputError: a file cannot be written; what was there before is as it was.
    """
    with replacing_together(folder / SWAP, TASK) as partial:
        yield partial


def finish_swap(folder: Path) -> None:
    """Move what was written whole to its place, as far as a killed run has not done so.

    Raises:
        OutputError: a file cannot be moved.
    """
    swap.finish_swap(folder / SWAP, TASK)


def drop_swap(folder: Path) -> None:
    """Remove what another run, whose files are gone, had not moved to its place."""
    shutil.rmtree(folder / SWAP, ignore_errors=True)
