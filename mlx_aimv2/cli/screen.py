"""The screen of a verb: progress as bars on a terminal or lines in a pipe, notices and skipped items as lines."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..events import EpochDone, Event, Notice, Progress, Skipped, StepDone
from .guard import with_advice
from .live_bar import LIVE
from .output import say
from .progress import Training, counting_bars, training_bars

if TYPE_CHECKING:
    from rich.progress import TaskID

TRAINING = "steps"  # the unit of the progress of a training, which `StepDone` describes in full


class Screen:
    """Shows events: notices and skipped items as lines, progress as a bar if stderr is a terminal.

    A training gets a bar with its numbers; in a pipe, a line for every epoch and every tenth of the steps.

    Attributes:
        skipped: how many items were skipped.
    """

    def __init__(self, reasons: Mapping[str, str] | None = None) -> None:
        """Start without events.

        Args:
            reasons: by source, why it is skipped, in place of the reason of its event.
        """
        self._reasons = dict(reasons or {})
        self.skipped = 0
        self._started = time.monotonic()
        self._unit = ""
        self._tasks: dict[str, TaskID] = {}
        self._training = Training()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Notice):
            say(event.message)
        elif isinstance(event, Skipped):
            self.skipped += event.count
            named = f"{' '.join(str(event.source).split())}: "
            reason = " ".join(self._reasons.get(str(event.source), event.reason).split()).removeprefix(named)
            say(f"skipped {event.source}: {with_advice(reason, event.advice)}")
        elif isinstance(event, StepDone | EpochDone):
            self._train(event)
        elif event.unit == TRAINING:
            self._training.begin()
        else:
            self._progress(event)

    def start_clock(self) -> None:
        """Measure `seconds` from now on."""
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since `start_clock`."""
        return time.monotonic() - self._started

    def summary(self, verb: str, count: int, total: str, skipped: int | None = None) -> str:
        """A line about a run over images or texts: count, time, speed, skipped items (None for those seen here)."""
        rate = f" ({count / self.seconds:.1f}/s)" if self.seconds else ""
        skipped = self.skipped if skipped is None else skipped
        left_out = f", {skipped} skipped" if skipped else ""
        return f"{verb} {count} of {total} in {self.seconds:.1f} s{rate}{left_out}"

    def _progress(self, event: Progress) -> None:
        if not LIVE.is_possible() or event.total == 1:
            return
        if event.unit != self._unit:  # bytes of a download have other columns than images
            self.close()
        bars = LIVE.bars
        if bars is None:
            self._unit, self._tasks = event.unit, {}
            bars = LIVE.show(counting_bars(event.unit))
        if event.stage not in self._tasks:
            self._tasks[event.stage] = bars.add_task(event.stage, total=event.total)
        bars.update(self._tasks[event.stage], completed=event.done, total=event.total)

    def _train(self, event: StepDone | EpochDone) -> None:
        live = LIVE.is_possible()
        if isinstance(event, StepDone):
            lines = self._training.add_step(event)
        else:
            lines = self._training.add_epoch(event, with_pace=not live)
        if live:
            fields = self._training.fields(event)
            bars = LIVE.bars
            if bars is None or self._unit != TRAINING:
                self._unit, bars = TRAINING, LIVE.show(training_bars())
                self._tasks = {TRAINING: bars.add_task("", total=event.steps, **fields)}
            bars.update(self._tasks[TRAINING], completed=event.step, **fields)
        for line in lines if isinstance(event, EpochDone) or not live else ():
            say(line)

    def close(self) -> None:
        """Remove the bar."""
        LIVE.close()
        self._tasks = {}


@contextlib.contextmanager
def screen(reasons: Mapping[str, str] | None = None) -> Iterator[Screen]:
    """A `Screen` that is closed at the end of the block."""
    events = Screen(reasons)
    try:
        yield events
    finally:
        events.close()
