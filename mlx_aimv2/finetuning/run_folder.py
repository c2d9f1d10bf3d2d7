"""The folder of a run: checked for other runs and other files, made and locked."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..adapters.task import SWAP, TASK
from ..datasets.record import RECORD as SPLITS
from ..errors import InputError, OutputError
from ..storage.json_files import read_json
from ..storage.locks import locked
from ..storage.swap import finish_swap
from ..training.state import STATE
from .options import FinetuneOptions


def adapter_path(options: FinetuneOptions) -> Path:
    """The folder of the run, which need not exist.

    Raises:
        InputError: its name is invalid.
    """
    folder = Path(os.path.expanduser(options.adapter_path))
    try:
        folder.is_dir()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{str(folder)[:200]}: {reason}: name another --adapter-path") from error
    return folder


@contextlib.contextmanager
def claimed(options: FinetuneOptions) -> Iterator[Path]:
    """The folder of the run, locked against other runs.

    Raises:
        InputError: it holds another run, or no run to resume, or another run is training there.
        OutputError: it cannot be written; if the run can be resumed, the message says how.
    """
    folder = adapter_path(options)
    is_new = not folder.is_dir()
    if is_new:
        check_folder(folder, options.resume)  # before anything is made
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError.writing(folder, error) from error
    try:
        with locked(folder):
            check_folder(folder, options.resume)
            if options.resume and (folder / STATE).is_file():
                finish_swap(folder / SWAP, TASK)  # of a run that was killed
            else:
                shutil.rmtree(folder / SWAP, ignore_errors=True)  # of another run, whose files are gone
            try:
                yield folder
            except OutputError as error:
                if not (folder / STATE).is_file():
                    raise
                raise OutputError(f"{error}; once it can be, --resume goes on with this run") from error
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()  # if nothing was written


def check_folder(folder: Path, resume: bool) -> None:
    """Check that a folder is free for a new run, or holds a run to resume.

    Raises:
        InputError: it is not, or it is a file.
    """
    try:
        taken = folder.is_dir() and any(_taken(folder))
    except OSError as error:
        raise InputError.reading(folder, error) from error
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name another --adapter-path")
    if resume and (folder / TASK).is_file() and not (folder / STATE).is_file():
        if read_json(folder / TASK).get("method") == "knn":
            raise InputError(
                f"{folder} holds a finished run of knn, which has no steps to go on with: leave --resume out and name"
                " another --adapter-path"
            )
        raise InputError(
            f"{folder} holds what a training left, and not its {STATE}, without which it cannot go on: begin another"
            f" run from it, with --resume-adapter-file {folder} and another --adapter-path"
        )
    # a run that was killed early leaves its splits, a part of its log, or only the folder
    begun = folder.is_dir() and (not taken or any((folder / name).is_file() for name in (SPLITS, STATE)))
    if resume and not begun:
        raise InputError(f"{folder} holds no run to go on with: leave --resume out")
    if taken and not resume:
        raise InputError(
            f"{folder} holds something already: --resume goes on with a run, or name another --adapter-path"
        )


def _taken(folder: Path) -> list[Path]:
    """The files that a new run would mix with; features on disk are reused."""
    files = [path for path in folder.iterdir() if path.name != SPLITS and path.name[0] != "."]
    return files + [path for path in [folder / STATE] if path.is_file()]
