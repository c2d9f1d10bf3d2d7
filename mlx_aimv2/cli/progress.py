"""Progress of a training as text, and the progress bars of a terminal."""

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

MAIN_METRICS = ("top1", "map", "macro_f1", "recall@1")  # the live line has room for one of them
DETAILS = ("image_to_text", "text_to_image")  # metrics that lines leave out: they have their mean
NARROW = 60  # columns of a terminal; with fewer, there is no bar
TENTHS = 10  # plain lines of a whole training, besides those of epochs


class Training:
    """Speed, remaining time and mean loss of a training, from its events.

    Attributes:
        validation: the main metric of the last validation, as text.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()  # when the last event came
        self._training_s, self._validation_s = 0.0, 0.0
        self._steps, self._images = 0, 0
        self._epoch, self._loss_sum, self._loss_count = -1, 0.0, 0  # the sum and the count of one epoch
        self._tenth = -1  # of all steps: the last that is done
        self._memory_bytes, self._learning_rate = 0, 0.0
        self.validation = ""

    def begin(self) -> None:
        """Measure time from now on, if there was no step yet."""
        if not self._steps:
            self._last = self._clock()

    def add_step(self, event: StepDone) -> list[str]:
        """Add a step; return the lines to print in a pipe."""
        self._training_s += self._since_last()
        if event.epoch != self._epoch:
            self._epoch, self._loss_sum, self._loss_count = event.epoch, 0.0, 0
        self._loss_sum += event.loss
        self._loss_count += 1
        self._memory_bytes, self._learning_rate = event.memory_bytes, event.learning_rate
        self._steps += 1
        self._images += event.images
        before, self._tenth = self._tenth, TENTHS * event.step // max(1, event.steps)
        if not 0 <= before < self._tenth:
            return []
        loss = f"loss {self.loss:.4f}, learning rate {self._learning_rate:.2e}"
        return [f"{_epochs(event)}, step {event.step} of {event.steps}: {loss}, {self._pace(event)}"]

    def add_epoch(self, event: EpochDone, with_pace: bool = True) -> list[str]:
        """Add a validation; return the lines to print.

        Args:
            event: the validation.
            with_pace: whether to add speed, memory and remaining time.
        """
        self._validation_s += self._since_last()
        main = next((name for name in MAIN_METRICS if name in event.metrics), None)
        self.validation = f"{main} {event.metrics[main]:.1%}" if main else ""
        metrics = {name: x for name, x in event.metrics.items() if not name.startswith(DETAILS)}
        text = ", ".join(f"val_{name} {x:.4f}" for name, x in metrics.items())
        if not self._steps:  # the run was resumed just before this validation
            return [f"{_epochs(event)}: {text}"]
        pace = f", {self._pace(event)}" if with_pace else ""
        return [f"{_epochs(event)}: loss {self.loss:.4f}, {text}{pace}"]

    def _since_last(self) -> float:
        """The seconds since the last event."""
        last, self._last = self._last, self._clock()
        return self._last - last

    @property
    def loss(self) -> float:
        """Mean of the epoch so far."""
        return self._loss_sum / max(1, self._loss_count)

    @property
    def images_per_second(self) -> float:
        """Speed of the training, without validation."""
        return self._images / self._training_s if self._training_s else 0.0

    def seconds_left(self, event: StepDone | EpochDone) -> float:
        """Time until the last step, validations included."""
        seconds = self._training_s + self._validation_s
        return seconds / max(1, self._steps) * (event.steps - event.step)

    def fields(self, event: StepDone | EpochDone) -> dict[str, Any]:
        """Texts of the live line; the least important come last, where a line is cut."""
        left, speed = duration(self.seconds_left(event)), self.images_per_second
        facts = (
            f"loss {self.loss:.4f} {self.validation} {left} left {speed:.1f}/s lr {self._learning_rate:.1e}"
        )
        return {
            "epoch": f"epoch {event.epoch + 1}/{event.epochs}",
            "facts": f"{' '.join(facts.split())} {size(self._memory_bytes)}",
        }

    def _pace(self, event: StepDone | EpochDone) -> str:
        left = f"{duration(self.seconds_left(event))} left"
        return f"{self.images_per_second:.1f} images/s, {size(self._memory_bytes)}, {left}"


def _epochs(event: StepDone | EpochDone) -> str:
    return f"epoch {event.epoch + 1} of {event.epochs}"


def counting_bars(unit: str) -> Bars:
    """Bars that count items, or the bytes of a transfer; a narrow terminal gets count and time only."""
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
        def render(self, task: Task) -> Text:  # mean of the whole run: batches come in bursts
            speed = task.completed / task.elapsed if task.elapsed else 0
            return Text(f"{speed:.1f}/s" if speed else "", style="cyan")

    def unbroken() -> Column:
        return Column(no_wrap=True)

    console = _console()
    count = (DownloadColumn if unit == "bytes" else MofNCompleteColumn)(table_column=unbroken())
    speed = (TransferSpeedColumn if unit == "bytes" else Speed)(table_column=unbroken())
    left = TimeRemainingColumn(table_column=unbroken())
    columns = (count, left) if console.width < NARROW else (BarColumn(), count, speed, left)
    return _bars(console, TextColumn("{task.description}"), *columns)


def training_bars() -> Bars:
    """The live line of a training; its task has the fields of `Training.fields`."""
    from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Facts(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(task.fields["facts"], no_wrap=True, overflow="ellipsis")

    console = _console()
    bar = () if console.width < NARROW else (BarColumn(bar_width=12, table_column=Column(no_wrap=True)),)
    count = MofNCompleteColumn(table_column=Column(no_wrap=True))
    return _bars(console, TextColumn("{task.fields[epoch]}"), *bar, count, Facts())


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _bars(console: Console, *columns: ProgressColumn) -> Bars:
    from rich.progress import Progress as Bars

    return Bars(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
