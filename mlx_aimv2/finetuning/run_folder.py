"""Checks, makes and locks the folder of a run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..adapters.task import TASK
from ..datasets.record import RECORD as SPLITS
from ..errors import InputError, OutputError
from ..storage.json_files import read_json
from ..storage.locks import locked
from ..training.best_epoch import drop_swap, finish_swap
from ..training.state import STATE
from .options import FinetuneOptions


def adapter_path(options: FinetuneOptions) -> Path:
    """The folder of the run, which need not be there yet.

    Raises:
        InputError: its name is none that a folder could have.
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
    """The folder of the run, which no other run may use meanwhile.

    Raises:
        InputError: it holds another run, or none to go on with, or another one is training there.
        OutputError: it cannot be written; if there is something to go on with, the message says how.
    """
    folder = adapter_path(options)
    if not folder.is_dir():
        check_folder(folder, options.resume)  # nothing is made for what is refused
        _make_folder(folder)
    with locked(folder):
        check_folder(folder, options.resume)
        if options.resume and (folder / STATE).is_file():
            finish_swap(folder)
        else:
            drop_swap(folder)
        try:
            yield folder
        except OutputError as error:
            if not (folder / STATE).is_file():
                raise
            raise OutputError(f"{error}; once it can be, --resume goes on with this run") from error


def check_folder(folder: Path, resume: bool) -> None:
    """Refuse a folder for a new run that holds another, or one without a run to go on with.

    Raises:
        InputError: it is such a one, or a file.
    """
    try:
        taken = folder.is_dir() and any(_taken(folder))
    except OSError as error:
        raise InputError.reading(folder, error) from error
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name another --adapter-path")
    if resume and (folder / TASK).is_file() and not (folder / STATE).is_file():
        raise InputError(_finished(folder))
    # a run that was killed early on has left its splits, a part of its log, or only the folder
    begun = folder.is_dir() and (not taken or any((folder / name).is_file() for name in (SPLITS, STATE)))
    if resume and not begun:
        raise InputError(f"{folder} holds no run to go on with: leave --resume out")
    if taken and not resume:
        raise InputError(
            f"{folder} holds something already: --resume goes on with a run, or name another --adapter-path"
        )


def _finished(folder: Path) -> str:
    """Why a run that has no state does not go on, and what there is instead."""
    if read_json(folder / TASK).get("method") == "knn":
        return (
            f"{folder} holds a finished run of knn, which has no steps to go on with: leave --resume out and name"
            " another --adapter-path"
        )
    return (
        f"{folder} holds what a training left, and not its {STATE}, without which it cannot go on: begin another"
        f" run from it, with --resume-adapter-file {folder} and another --adapter-path"
    )


def _make_folder(folder: Path) -> None:
    """Make the folder.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.writing(folder, error) from error


def _taken(folder: Path) -> list[Path]:
    """What a folder holds that a new run would mix with; features on disk are meant to be found."""
    found = [path for path in folder.iterdir() if path.name != SPLITS and path.name[0] != "."]
    return found + [path for path in [folder / STATE] if path.is_file()]
