"""A terminal for tests: a pty, and what is to be seen on it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import pyte

ROWS = 400  # nothing scrolls away
IGNORING = "trap '' {}; exec \"$@\""


class Terminal:
    """A pseudo-terminal of ``columns``; it is nobody's controlling terminal."""

    def __init__(self, columns: int = 80) -> None:
        self.columns, self.raw, self._more = columns, b"", threading.Condition()
        self._master, self.descriptor = pty.openpty()
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # Linux says so when the last writer has closed
                return
            if not data:
                return
            with self._more:
                self.raw += data
                self._more.notify_all()

    def wait_for(self, pattern: str, timeout: float = 120) -> re.Match[bytes]:
        """What has been written that matches ``pattern``, as soon as it has been."""
        with self._more:
            found = self._more.wait_for(lambda: re.search(pattern.encode(), self.raw), timeout)
        assert found, self.raw[-2000:]
        return found

    def hang_up(self) -> None:
        """Close the window it is in."""
        os.close(self._master)
        self._master = -1

    def open(self):
        """A text file that writes to it, as `sys.stderr` does."""
        return os.fdopen(
            os.dup(self.descriptor), "w", buffering=1, encoding="utf-8", errors="backslashreplace"
        )

    def close(self) -> None:
        """Wait until everything has arrived."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            if self._master >= 0:
                self._reader.join(timeout=30)
                os.close(self._master)

    @property
    def screen(self) -> pyte.Screen:
        """What a terminal shows that was given all of it."""
        screen = pyte.Screen(self.columns, ROWS)
        pyte.ByteStream(screen).feed(self.raw)
        return screen

    @property
    def lines(self) -> list[str]:
        """The lines on it, down to the last that is not empty."""
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines

    @property
    def text(self) -> str:
        """The lines with those joined that go over the edge."""
        return "\n".join(self.lines)

    @property
    def shows_cursor(self) -> bool:
        """Whether the cursor was given back."""
        return not self.screen.cursor.hidden


@contextlib.contextmanager
def start(arguments, terminal, ignored=(), **streams) -> Iterator[subprocess.Popen]:
    """A process of the command line with a terminal as stderr; `nohup` ignores signals so, too."""
    command = [sys.executable, "-m", "mlx_aimv2", *map(str, arguments)]
    if ignored:
        command = ["sh", "-c", IGNORING.format(" ".join(ignored)), "sh", *command]
    environment = {**os.environ, "MLX_AIMV2_DEVICE": "cpu", "HF_HUB_OFFLINE": "1", "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    streams = {"stdin": subprocess.DEVNULL, "stderr": terminal.descriptor, **streams}
    with subprocess.Popen(command, env=environment, **streams) as process:
        try:
            yield process
        finally:
            process.kill()


@dataclass
class Seen:
    """What a verb left: its status, what came out of stdout elsewhere, and the terminal that stderr was."""

    status: int
    stdout: str
    terminal: Terminal


def run_verb(monkeypatch, arguments, stdout="terminal", columns=80) -> Seen:
    """Run a verb in this process with a terminal as stderr, and stdout as a file, a pipe or the same terminal.

    Args:
        monkeypatch: of pytest.
        arguments: the verb and what follows it.
        stdout: `file`, `pipe` or `terminal`.
        columns: of the terminal.
    """
    from mlx_aimv2.cli.app import main

    def end(status):  # what ends the process elsewhere
        raise SystemExit(status)

    with monkeypatch.context() as patch, warnings.catch_warnings(), tempfile.TemporaryFile("w+b") as file:
        warnings.simplefilter("default")
        terminal = Terminal(columns)
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("TERM", "xterm-256color")
        patch.setattr(os, "_exit", end)
        patch.setattr(warnings, "showwarning", warnings.showwarning)
        patch.setattr(sys, "argv", ["mlx-aimv2", *map(str, arguments)])
        patch.setattr(sys, "stderr", terminal.open())
        out, collected = _stdout(stdout, terminal, file)
        patch.setattr(sys, "stdout", out)
        try:
            main()
            status = 0
        except SystemExit as end_of_it:
            status = end_of_it.code or 0
        finally:
            sys.stdout.close()
            sys.stderr.close()
            terminal.close()
        return Seen(status, collected(), terminal)


def _stdout(kind, terminal, file):
    """A text file for `sys.stdout`, and what gives its content in the end."""
    if kind == "terminal":
        return terminal.open(), lambda: ""
    if kind == "pipe":
        reading, writing = os.pipe()
        arrived: list[bytes] = []

        def collect() -> None:
            with os.fdopen(reading, "rb") as pipe:
                arrived.append(pipe.read())

        thread = threading.Thread(target=collect)
        thread.start()
        out = os.fdopen(writing, "w", encoding="utf-8", errors="surrogateescape")
        return out, lambda: (thread.join(30), arrived[0].decode())[1]

    def content():
        file.seek(0)
        return file.read().decode()

    return os.fdopen(os.dup(file.fileno()), "w", encoding="utf-8", errors="surrogateescape"), content


class Drawn:
    """A live bar on a terminal, with stdout on the same one."""

    def __init__(self, monkeypatch, columns=80):
        self.terminal = Terminal(columns)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm-256color")
        self.out, self.err = self.terminal.open(), self.terminal.open()
        monkeypatch.setattr("sys.stdout", self.out)
        monkeypatch.setattr("sys.stderr", self.err)

    def close(self):
        self.out.close()
        self.err.close()
        self.terminal.close()
        return self.terminal.lines
