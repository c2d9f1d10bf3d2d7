"""How a training goes, in a live line on a terminal and in plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..events import EpochDone, StepDone
from ..messages import duration, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn

SHOWN = ("top1", "map", "macro_f1", "recall@1")  # the measure of validation that the live line has room for
IN_FILES = ("image_to_text", "text_to_image")  # what their means stand for in a line
NARROW = 60  # columns of a terminal; with fewer, bars are left out
TENTHS = 10  # plain lines that a whole training has between its epochs


class Training:
    """What is known of a training from what it has reported so far."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know nothing yet.

        Args:
            clock: gives the seconds.
        """
        self._clock, self._last = clock, clock()
        self._seconds, self._steps, self._images, self._validating = 0.0, 0, 0.0, 0.0
        self._epoch, self._tenth, self._loss, self._losses = -1, -1, 0.0, 0
        self._memory, self._rate = 0, 0.0
        self.validation = ""

    def begin(self) -> None:
        """The first step begins now."""
        if not self._steps:
            self._last = self._clock()

    def add_step(self, event: StepDone) -> list[str]:
        """Take in a step; the plain lines to write of it."""
        since = self._since_last()
        if event.epoch != self._epoch:
            self._epoch, self._loss, self._losses = event.epoch, 0.0, 0
        self._loss, self._losses = self._loss + event.loss, self._losses + 1
        self._memory, self._rate = event.memory_bytes, event.learning_rate
        self._steps += 1
        self._seconds += since
        self._images += event.images
        tenth = TENTHS * event.step // max(1, event.steps)
        new, self._tenth = self._tenth >= 0 and tenth > self._tenth, tenth
        return [f"{self._epochs(event)}, {self.step_line(event)}"] if new else []

    def add_epoch(self, event: EpochDone, with_pace: bool = True) -> list[str]:
        """Take in a validation; the plain lines to write of it.

        Args:
            event: the validation.
            with_pace: whether the line says how fast the training goes; a live line says so itself.
        """
        self._validating += self._since_last()
        self.validation = _validated(event)
        if not self._steps:  # a run that went on just before this validation
            return [f"{self._epochs(event)}: {_all_validated(event)}"]
        pace = f", {self._pace(event)}" if with_pace else ""
        return [f"{self._epochs(event)}: loss {self.loss:.4f}, {_all_validated(event)}{pace}"]

    def _since_last(self) -> float:
        """The seconds since the last event."""
        last, self._last = self._last, self._clock()
        return self._last - last

    @property
    def loss(self) -> float:
        """The mean of the epoch so far."""
        return self._loss / max(1, self._losses)

    @property
    def images_per_second(self) -> float:
        """In training, without validation."""
        return self._images / self._seconds if self._seconds else 0.0

    def seconds_left(self, event: StepDone | EpochDone) -> float:
        """Until the last step, with the validations on the way."""
        return (self._seconds + self._validating) / max(1, self._steps) * (event.steps - event.step)

    def fields(self, event: StepDone | EpochDone) -> dict[str, Any]:
        """What the live line shows beside its bar; what matters least comes last, where a line is cut."""
        left, speed = duration(self.seconds_left(event)), self.images_per_second
        facts = f"loss {self.loss:.4f} {self.validation} {left} left {speed:.1f}/s lr {self._rate:.1e}"
        return {
            "epoch": f"epoch {event.epoch + 1}/{event.epochs}",
            "facts": f"{' '.join(facts.split())} {size(self._memory)}",
        }

    def step_line(self, event: StepDone) -> str:
        """A step in words."""
        loss = f"loss {self.loss:.4f}, learning rate {self._rate:.2e}"
        return f"step {event.step} of {event.steps}: {loss}, {self._pace(event)}"

    def _pace(self, event: StepDone | EpochDone) -> str:
        left = f"{duration(self.seconds_left(event))} left"
        return f"{self.images_per_second:.1f} images/s, {size(self._memory)}, {left}"

    def _epochs(self, event: StepDone | EpochDone) -> str:
        return f"epoch {event.epoch + 1} of {event.epochs}"


def _validated(event: EpochDone) -> str:
    name = next((name for name in SHOWN if name in event.metrics), None)
    return f"{name} {event.metrics[name]:.1%}" if name else ""


def _all_validated(event: EpochDone) -> str:
    metrics = {name: x for name, x in event.metrics.items() if not name.startswith(IN_FILES)}
    return ", ".join(f"val_{name} {x:.4f}" for name, x in metrics.items())


def counting_bars(unit: str) -> Bars:
    """Bars for what is counted in ``unit``: items, or the bytes of a transfer.

    A narrow terminal has room for the count and the time, without the bar itself.
    """
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
    from rich.table import Column
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = (
                task.completed / task.elapsed if task.elapsed else 0
            )  # of the whole run: batches come in bursts
            return Text(f"{speed:.1f}/s" if speed else "", style="cyan")

    def whole() -> Column:  # of the others, the bar gives way
        return Column(no_wrap=True)

    is_bytes, console = unit == "bytes", _console()
    done = (DownloadColumn if is_bytes else MofNCompleteColumn)(table_column=whole())
    speed = (TransferSpeedColumn if is_bytes else Speed)(table_column=whole())
    beside = () if console.width < NARROW else (speed,)
    bar = () if console.width < NARROW else (BarColumn(),)
    left = TimeRemainingColumn(table_column=whole())
    return _bars(console, TextColumn("{task.description}"), *bar, done, *beside, left)


def training_bars() -> Bars:
    """The live line; its one task has the fields that `Training.fields` gives."""
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Facts(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(task.fields["facts"], no_wrap=True, overflow="ellipsis")

    console = _console()
    bar = () if console.width < NARROW else (BarColumn(bar_width=12, table_column=Column(no_wrap=True)),)
    done = MofNCompleteColumn(table_column=Column(no_wrap=True))
    return _bars(console, TextColumn("{task.fields[epoch]}"), *bar, done, Facts())


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _bars(console: Console, *columns: ProgressColumn) -> Bars:
    from rich.progress import Progress as Bars

    return Bars(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
