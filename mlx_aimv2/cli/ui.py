"""What the command line shows: events on stderr, tables on stdout, errors in one line."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

from ..errors import Aimv2Error, InputError, OutputError
from ..events import Event, Metric, Notice, Progress, Skipped
from .progress import Training, training_bars

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

P = ParamSpec("P")
R = TypeVar("R")

NAME = "mlx-aimv2"
ALL_DONE, NOT_ALL_DONE, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
DEBUG_VARIABLE = "MLX_AIMV2_DEBUG"
TRAINING = "steps"  # the unit of what `Metric` says more of


def say(message: str) -> None:
    """One line of talk, on stderr; where that cannot be written, the work goes on all the same."""
    with contextlib.suppress(OSError):
        print(f"{NAME}: {_visible(message)}", file=sys.stderr, flush=True)


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A Python warning as one line of talk; libraries warn of odd picture files so."""
    say(f"warning: {' '.join(str(message).split())}")


def plain(cell: str) -> str:
    """A cell of a table: what would break its lines, or order a terminal about, is escaped."""
    return _visible(cell.replace("\\", "\\\\"))


def _visible(text: str) -> str:
    """Control characters, of which file names may be full, as escapes."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def put(line: str) -> None:
    """One line of data, on stdout.

    Raises:
        OutputError: it cannot be written, as on a full disk.
        BrokenPipeError: its reader has gone.
    """
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"stdout cannot be written: {error.strerror or error}") from error


def leave(status: int) -> NoReturn:
    """End the process at once, with what was printed delivered; threads that still decode are not waited for."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Turn what a verb raises into one line on stderr and an exit status."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt as stop:  # may say what to do about it
            say(f"interrupted: {stop}" if stop.args else "interrupted")
            leave(INTERRUPTED)
        except BrokenPipeError:  # the reader of our output has enough: `mlx-aimv2 embed … | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            leave(NOT_ALL_DONE)
        except Exception as error:
            raise SystemExit(report(error)) from error

    return guarded


def report(error: Exception) -> int:
    """Say what went wrong; the exit status for it. With --debug, the traceback too."""
    if os.environ.get(DEBUG_VARIABLE):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, Aimv2Error):
        say(f"error: {_one_line(error)}")
        return WRONG_USAGE if isinstance(error, InputError) else NOT_ALL_DONE
    say(f"unexpected error: {type(error).__name__}: {_one_line(error)} (run again with --debug to see where)")
    return NOT_ALL_DONE


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class Screen:
    """Renders events while a verb works: a progress bar on a terminal, none in a pipe.

    A training has a bar with its numbers on a terminal; in a pipe, a line for every epoch and every tenth of it all.
    """

    def __init__(self) -> None:
        """Show nothing yet."""
        self.skipped = 0
        self.bars = True  # False where results are drawn on the same terminal as they come
        self.started = time.monotonic()
        self._bars: Bars | None = None
        self._unit = ""
        self._tasks: dict[str, TaskID] = {}
        self._training = Training()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Notice):
            self._line(event.message)
        elif isinstance(event, Skipped):
            self.skipped += 1
            named = f"{' '.join(str(event.source).split())}: "
            reason = " ".join(event.reason.split()).removeprefix(named)
            self._line(f"skipped {event.source}: {reason}")
        elif isinstance(event, Metric):
            self._metric(event)
        elif event.unit == TRAINING:
            self._training.begin()
        else:
            self._progress(event)

    def start_clock(self) -> None:
        """The work proper begins now."""
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the clock was started."""
        return time.monotonic() - self.started

    def summary(self, verb: str, count: int, total: int, interrupted: bool) -> str:
        """One line on a run over pictures: how many, how long, how fast, what was left out."""
        rate = f" ({count / self.seconds:.1f}/s)" if self.seconds else ""
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        stopped = ", interrupted" if interrupted else ""
        return f"{verb} {count} of {total} pictures in {self.seconds:.1f} s{rate}{skipped}{stopped}"

    def _line(self, message: str) -> None:
        if self._bars is None:
            say(message)
        else:
            self._bars.console.print(
                f"{NAME}: {_visible(message)}", markup=False, highlight=False, soft_wrap=True
            )

    def _progress(self, event: Progress) -> None:
        if not self.bars or not sys.stderr.isatty() or event.total == 1:
            return
        if event.unit != self._unit:  # bytes of a download have other columns than pictures
            self.close()
        if self._bars is None:
            self._bars, self._unit = _bars(event.unit), event.unit
            self._bars.start()
        if event.stage not in self._tasks:
            self._tasks[event.stage] = self._bars.add_task(event.stage, total=event.total)
        self._bars.update(self._tasks[event.stage], completed=event.done, total=event.total)

    def _metric(self, event: Metric) -> None:
        lines, live = self._training.add(event), self.bars and sys.stderr.isatty()
        if live:
            if self._bars is None or self._unit != TRAINING:
                self.close()
                self._bars, self._unit = training_bars(), TRAINING
                first = self._training.fields(event)
                self._tasks[TRAINING] = self._bars.add_task("", total=event.steps, **first)
                self._bars.start()
            self._bars.update(self._tasks[TRAINING], completed=event.step, **self._training.fields(event))
        for line in lines if "loss" not in event.values or not live else ():
            self._line(line)

    def close(self) -> None:
        """Take the bar away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars, self._tasks = None, {}


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """A `Screen` that is closed in the end, whatever happens."""
    shown = Screen()
    try:
        yield shown
    finally:
        shown.close()


def _bars(unit: str) -> Bars:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import (
        Progress as Bars,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = (
                task.completed / task.elapsed if task.elapsed else 0
            )  # over the whole run: batches come in bursts
            return Text(f"{speed:.1f}/s" if speed else "", style="cyan")

    amount = (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(), Speed())
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn())
    return Bars(*columns, console=Console(stderr=True), transient=True)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], cut: bool = False) -> None:
    """A table on stdout: drawn on a terminal, tab-separated in a pipe.

    With ``cut``, the last column is cut where the terminal ends; else it goes on in the next line.
    """
    if not sys.stdout.isatty():
        put("\t".join(headers))
        for row in rows:
            put("\t".join(map(plain, row)))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD)
    for header in headers[:-1]:
        drawn.add_column(header, overflow="fold")
    drawn.add_column(headers[-1], no_wrap=cut, overflow="ellipsis" if cut else "fold")
    for row in rows:
        drawn.add_row(*(Text(_visible(cell)) for cell in row))
    Console().print(drawn)
