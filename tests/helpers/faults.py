"""Failures of the file system, one after the other: every write, rename and sync of a function fails in turn."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlx_aimv2.storage import atomic

STEPS = ("rename", "replace", "unlink", "rmdir", "mkdir", "touch")
Write = Callable[[Path], object]


class Killed(BaseException):
    """The process ends; nothing but a test catches this."""


class Faults:
    """Counts what is done to the file system below a folder, and lets it fail from one step on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[str, Path]] = []
        self._fail_at: int | None = None
        self.failed = self._lasting = self._watching = False
        for name in STEPS:
            monkeypatch.setattr(Path, name, self._of_path(name, getattr(Path, name)))
        path_open, rmtree, exchange, sync = Path.open, shutil.rmtree, atomic._exchange, atomic.sync

        def counted_open(path: Path, mode: str = "r", *more: object, **options: object) -> object:
            if mode[0] in "wax":
                self._step("open", path)
            return path_open(path, mode, *more, **options)

        def counted_rmtree(path: Path, *more: object, **options: object) -> None:
            try:
                self._step("rmtree", Path(path))
            except OSError:
                if not options.get("ignore_errors"):
                    raise
                return
            rmtree(path, *more, **options)

        def counted_exchange(one: Path, other: Path) -> bool:
            self._step("exchange", Path(one))
            return exchange(one, other)

        def counted_sync(path: Path) -> None:
            self._step("sync", path)  # without the real one, which waits for the disk

        monkeypatch.setattr(Path, "open", counted_open)
        monkeypatch.setattr(shutil, "rmtree", counted_rmtree)
        monkeypatch.setattr(atomic, "_exchange", counted_exchange)
        for name, module in list(sys.modules.items()):
            if name.startswith("mlx_aimv2") and getattr(module, "sync", None) is sync:
                monkeypatch.setattr(module, "sync", counted_sync)

    def _of_path(self, name: str, method: Callable[..., object]) -> Callable[..., object]:
        def step(path: Path, *more: object, **options: object) -> object:
            self._step(name, path)
            return method(path, *more, **options)

        return step

    def _step(self, name: str, path: Path) -> None:
        if not self._watching:
            return
        if self._fail_at is not None and len(self.steps) >= self._fail_at:
            self.failed = True
            if self._lasting:
                raise Killed
            self._fail_at = None
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.steps.append((name, path))

    @contextlib.contextmanager
    def watch(self, fail_at: int | None = None, lasting: bool = False) -> Iterator[list[tuple[str, Path]]]:
        """Take note of the steps of this block; let one fail, or with ``lasting`` all from that one on."""
        self.steps, self._fail_at, self._lasting, self._watching = [], fail_at, lasting, True
        self.failed = False
        try:
            yield self.steps
        finally:
            self._watching = False

    def everywhere(
        self,
        folder: Path,
        write: Write,
        check: Callable[[Path, int], None],
        begin: Write = lambda path: None,
        lasting: bool = False,
    ) -> int:
        """Run ``write`` as often as it has steps, each time with another one failing, and ``check`` what is left.

        Args:
            folder: for a new folder of each time.
            write: called with a path to write to.
            check: called with that path and the number of the step.
            begin: called with the path before; what it writes never fails.
            lasting: nothing works after the step that fails, as if the process had been killed.

        Returns:
            How many steps there are.
        """
        for number in range(10_000):
            place = folder / str(number)
            place.mkdir()
            begin(place / "out")
            with (
                contextlib.suppress(Killed, OSError),
                self.watch(number, lasting),
            ):
                write(place / "out")
            check(place / "out", number)
            if not self.failed:
                return number
        raise AssertionError("it never ends")
