"""The loop: epochs of batches, a validation after each, the best kept, the state saved, early stopping.

It takes a model, data and callbacks, and knows nothing of methods: those are a table (`methods.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Protocol

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from ..errors import NonFiniteError, TrainingError
from ..events import Metric, Notice, OnEvent, Progress
from ..finetuning.options import FinetuneOptions
from ..finetuning.run_length import check_length, planned_steps, total_steps
from ..messages import counted
from .judging import rank
from .schedule import learning_rate, warmup_steps
from .state import Place, RunFolder, saved_parameters
from .step import Batch, Stepper

Validate = Callable[[], Mapping[str, float]]  # metrics of the model as it is


class Epochs(Protocol):
    """Training data whose order follows from the seed and the epoch alone."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def epoch(self, number: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from one of them on."""


@dataclass(frozen=True)
class Trained:
    """How a training went.

    Attributes:
        metric: what says which epoch is best.
        best: the best value of it.
        best_epoch: after which epoch, from 0.
        epochs: that were done.
        steps: that were done.
        stopped_early: whether patience ran out.
    """

    metric: str
    best: float
    best_epoch: int
    epochs: int
    steps: int
    stopped_early: bool


class Loop:
    """One training run."""

    def __init__(
        self,
        stepper: Stepper,
        data: Epochs,
        options: FinetuneOptions,
        folder: RunFolder,
        validate: Validate,
        keep_best: Callable[[], None],
        on_event: OnEvent,
    ) -> None:
        """Get ready.

        Args:
            stepper: makes the steps, on its model.
            data: what to train on.
            options: how long, how fast, when to stop.
            folder: where state and log go.
            validate: called after every epoch.
            keep_best: called when the model is the best so far.
            on_event: called with progress and metrics.
        """
        self._stepper, self._data, self._options = stepper, data, options
        self._folder, self._validate, self._keep_best, self._on_event = folder, validate, keep_best, on_event
        self.place = Place()
        self._total = planned_steps(options, self.steps_per_epoch)
        self._ema = dict(saved_parameters(stepper.model)) if options.ema else None

    @property
    def _model(self) -> nn.Module:
        return self._stepper.model

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch, the last of which may have fewer batches."""
        return -(-len(self._data) // self._options.grad_accumulation_steps)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self._total

    @property
    def total_epochs(self) -> int:
        """Epochs of the whole run, the last of which may be cut short."""
        return -(-self.total_steps // self.steps_per_epoch)

    def run(self, resume: bool = False) -> Trained:
        """Train.

        Args:
            resume: go on with what the folder holds; a run that was killed before it saved anything begins anew.

        Raises:
            TrainingError: the loss is not finite; the best epoch so far is kept.
            OutputError: state or log cannot be written.
            InputError: ``resume``, and what is there is another run's.
        """
        if resume and self._folder.exists():
            self.place = self._folder.restore(self._model, self._stepper.optimizer, self._ema)
            self._miss_best()
            self._go_on()
        else:
            self._folder.begin()
            self.place.total_steps = self._total
            self._save()  # from here on there is something to go on with
        self._progress()
        while self.place.epoch < self.total_epochs and not self._patience_is_over():
            self._train_epoch()
            self._end_epoch()
        place = self.place
        if place.best is None:  # lost, and no epoch is left that could be better
            self._judge(place.epoch - 1)
            self._save()
        best = place.best if place.best is not None else float("nan")
        stopped = place.epoch < self.total_epochs
        return Trained(self._options.best_metric, best, place.best_epoch, place.epoch, place.step, stopped)

    def _miss_best(self) -> None:
        """Where the best epoch is not there any more, the next one is the best."""
        if self.place.best is not None and not self._folder.has_best():
            self.place.best = None
            lost = (
                f"the best epoch so far, {self.place.best_epoch + 1}, is not whole in {self._folder.folder}"
            )
            self._on_event(Notice(f"{lost}: the best of what is still to come is kept"))

    def _go_on(self) -> None:
        """Go on to the end that the options name now, or where they name none, to the one that the run had."""
        place, options = self.place, self._options
        check_length(options, place, self._folder.folder)
        self._total = total_steps(options, place, self._total)
        over = place.batch == 0 and (place.step >= place.total_steps or self._patience_is_over())
        if self._total > place.total_steps and over:
            place.stale = 0  # who asks for more of a run that has ended wants all of it
            if cut := place.step % self.steps_per_epoch:  # --iters ended it within an epoch, which goes on
                place.epoch, place.batch = place.epoch - 1, cut * options.grad_accumulation_steps
        if self._total != place.total_steps:
            self._tell_of_new_end()
        elif over:
            early = ", as --patience has it" if place.step < self._total else ""
            ended = f"this run has ended after {counted(place.step, 'step')}{early}"
            self._on_event(Notice(f"{ended}: more --epochs let it go on"))
        place.total_steps = self._total
        self._save()

    def _tell_of_new_end(self) -> None:
        place = self.place
        rate, schedule = self._rate(min(place.step, self._total - 1)), self._options.schedule
        self._on_event(
            Notice(
                f"the run goes on from step {place.step:,} to {self._total:,} in place of {place.total_steps:,}: the"
                f" {schedule} schedule reaches to the new end, and the learning rate is {rate:.3g} now"
            )
        )

    def rehearse(self, steps: int) -> float:
        """Make a few steps and keep nothing; the seconds that one of them takes."""
        batches = chain.from_iterable(self._data.epoch(number) for number in count())
        self._model.train()
        started = 0.0
        for number in range(1 + steps):
            if number == 1:  # the one before has compiled what is to be compiled
                started = time.monotonic()
            chunk = list(islice(batches, min(len(self._data), self._options.grad_accumulation_steps)))
            self._stepper.step(chunk, learning_rate=0.0)
        return (time.monotonic() - started) / steps

    def _patience_is_over(self) -> bool:
        return 0 < self._options.patience <= self.place.stale

    def _train_epoch(self) -> None:
        place, options = self.place, self._options
        batches = self._data.epoch(place.epoch, place.batch)
        self._model.train()
        while place.step < self.total_steps and (
            chunk := list(islice(batches, options.grad_accumulation_steps))
        ):
            rate = self._rate(place.step)
            mx.random.seed(_mixed(options.seed, place.step))  # dropout of a step, whatever came before it
            loss, norm = self._stepper.step(chunk, rate)
            if not math.isfinite(loss):
                raise TrainingError(self._advice(f"the loss is {loss} in step {place.step + 1}", rate))
            if not math.isfinite(norm):
                raise TrainingError(self._advice(f"the gradient is {norm} in step {place.step + 1}", rate))
            place.step, place.batch = place.step + 1, place.batch + len(chunk)
            self._average()
            values = {"loss": loss, "learning_rate": rate, "grad_norm": norm}
            self._folder.log(place, {"step": place.step, "epoch": place.epoch, **values})
            used = {
                "images": sum(len(batch.targets) for batch in chunk),
                "memory_bytes": mx.get_peak_memory(),
            }
            self._report({**values, **used})
            self._progress()
            if place.step % options.save_every == 0:
                self._save()

    def _progress(self) -> None:
        self._on_event(Progress("training", self.place.step, self.total_steps, unit="steps"))

    def _report(self, values: Mapping[str, float]) -> None:
        self._on_event(Metric(self.place.step, self.place.epoch, values, self.total_steps, self.total_epochs))

    def _advice(self, what: str, rate: float) -> str:
        best, folder = self.place.best_epoch + 1, self._folder.folder
        kept = f"the best epoch so far, {best}, is kept in {folder}" if best else "no epoch had ended yet"
        return (
            f"{what}, at a learning rate of {rate:.3g}: try a tenth of it in another --adapter-path"
            f" (--learning-rate {self._options.peak_learning_rate / 10:.3g}), more --warmup or a smaller"
            f" --max-grad-norm; {kept}"
        )

    def _end_epoch(self) -> None:
        place = self.place
        values, better = self._judge(place.epoch)
        if better:
            place.stale = 0
        elif place.epoch * self.steps_per_epoch >= self._warmup_steps:  # it had its full learning rate
            place.stale += 1
        self._folder.log(place, {"step": place.step, "epoch": place.epoch, "validation": values})
        self._report({f"val_{name}": x for name, x in values.items()})
        place.epoch, place.batch = place.epoch + 1, 0
        self._save()

    def _judge(self, epoch: int) -> tuple[dict[str, float], bool]:
        """Validate the model as it is after an epoch, and keep it if it is the best: the measures, and if it is."""
        place, metric = self.place, self._options.best_metric
        self._model.eval()
        trained = saved_parameters(self._model)
        if self._ema is not None:
            self._model.update(tree_unflatten(list(self._ema.items())))
        values = self._validated()
        value, loss = values[metric], values["loss"]
        better = place.best is None or (rank(metric, value, loss) > rank(metric, place.best, place.best_loss))
        if better:
            self._keep_best()
            place.best, place.best_loss, place.best_epoch = value, loss, epoch
        if self._ema is not None:
            self._model.update(tree_unflatten(list(trained.items())))
        return values, better

    def _validated(self) -> dict[str, float]:
        try:
            return dict(self._validate())
        except NonFiniteError as error:
            rate = self._rate(max(0, self.place.step - 1))
            raise TrainingError(self._advice(f"{error} after step {self.place.step}", rate)) from error

    @property
    def _warmup_steps(self) -> int:
        return warmup_steps(self.total_steps, self._options.warmup)

    def _rate(self, step: int) -> float:
        options = self._options
        return learning_rate(
            step, self.total_steps, options.peak_learning_rate, options.schedule, options.warmup
        )

    def _average(self) -> None:
        """Move the averaged weights a little towards the trained ones."""
        if self._ema is None:
            return
        decay = min(self._options.ema, (1 + self.place.step) / (10 + self.place.step))  # quick at first
        for path, x in saved_parameters(self._model).items():
            self._ema[path] = decay * self._ema[path] + (1 - decay) * x
        mx.eval(self._ema)

    def _save(self) -> None:
        self._folder.save(self.place, self._model, self._stepper.optimizer, self._ema)


def _mixed(seed: int, step: int) -> int:
    """A number for one step of one run, far from those of its neighbours."""
    return (seed * 1_000_003 + step * 7919) % 2**32
