"""How a training goes, in a live line on a terminal and in plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..events import Metric
from ..words import duration, size

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

PREFIX = "val_"
SHOWN = ("top1", "map", "macro_f1", "recall@1")  # the measure of validation that the live line has room for
IN_FILES = ("image_to_text", "text_to_image")  # what their means stand for in a line
TENTHS = 10  # plain lines that a whole training has between its epochs


class Training:
    """What is known of a training from what it has reported so far."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know nothing yet.

        Args:
            clock: gives the seconds.
        """
        self._clock, self._last = clock, clock()
        self._seconds, self._steps, self._pictures, self._validating = 0.0, 0, 0.0, 0.0
        self._epoch, self._tenth, self._loss, self._losses = -1, -1, 0.0, 0
        self._memory, self._rate = 0.0, 0.0
        self.validation = ""

    def begin(self) -> None:
        """The first step begins now."""
        if not self._steps:
            self._last = self._clock()

    def add(self, event: Metric) -> list[str]:
        """Take in a report; the plain lines to write of it."""
        now = self._clock()
        since, self._last = now - self._last, now
        if "loss" not in event.values:
            self._validating += since
            self.validation = _validated(event)
            if not self._steps:  # a run that went on just before this validation
                return [f"{self._epochs(event)}: {_all_validated(event)}"]
            return [
                f"{self._epochs(event)}: loss {self.loss:.4f}, {_all_validated(event)}, {self._pace(event)}"
            ]
        if event.epoch != self._epoch:
            self._epoch, self._loss, self._losses = event.epoch, 0.0, 0
        self._loss, self._losses = self._loss + event.values["loss"], self._losses + 1
        self._memory = event.values.get("memory_bytes", 0.0)
        self._rate = event.values["learning_rate"]
        self._steps += 1
        self._seconds += since
        self._pictures += event.values.get("pictures", 0)
        tenth = TENTHS * event.step // max(1, event.steps)
        new, self._tenth = self._tenth >= 0 and tenth > self._tenth, tenth
        return [f"{self._epochs(event)}, {self.step_line(event)}"] if new else []

    @property
    def loss(self) -> float:
        """The mean of the epoch so far."""
        return self._loss / max(1, self._losses)

    @property
    def pictures_per_second(self) -> float:
        """In training, without validation."""
        return self._pictures / self._seconds if self._seconds else 0.0

    def seconds_left(self, event: Metric) -> float:
        """Until the last step, with the validations on the way."""
        return (self._seconds + self._validating) / max(1, self._steps) * (event.steps - event.step)

    def fields(self, event: Metric) -> dict[str, Any]:
        """What the live line shows beside its bar; what matters least comes last, where a line is cut."""
        left, speed = duration(self.seconds_left(event)), self.pictures_per_second
        facts = f"loss {self.loss:.4f} {self.validation} {left} left {speed:.1f}/s lr {self._rate:.1e}"
        return {
            "epoch": f"epoch {event.epoch + 1}/{event.epochs}",
            "facts": f"{' '.join(facts.split())} {size(self._memory)}",
        }

    def step_line(self, event: Metric) -> str:
        """A step in words."""
        loss = f"loss {self.loss:.4f}, learning rate {self._rate:.2e}"
        return f"step {event.step} of {event.steps}: {loss}, {self._pace(event)}"

    def _pace(self, event: Metric) -> str:
        left = f"{duration(self.seconds_left(event))} left"
        return f"{self.pictures_per_second:.1f} pictures/s, {size(self._memory)}, {left}"

    def _epochs(self, event: Metric) -> str:
        return f"epoch {event.epoch + 1} of {event.epochs}"


def _validated(event: Metric) -> str:
    name = next((name for name in SHOWN if PREFIX + name in event.values), None)
    return f"{name} {event.values[PREFIX + name]:.1%}" if name else ""


def _all_validated(event: Metric) -> str:
    shown = {
        name: x for name, x in event.values.items() if not name.removeprefix(PREFIX).startswith(IN_FILES)
    }
    return ", ".join(f"{name} {x:.4f}" for name, x in shown.items())


def counting_bars(unit: str) -> Bars:
    """Bars for what is counted in ``unit``: items, or the bytes of a transfer."""
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
    return Bars(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    )


def training_bars() -> Bars:
    """The live line; its one task has the fields that `Training.fields` gives."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.fields[epoch]}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    return Bars(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    )
