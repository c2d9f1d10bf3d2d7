"""The training loop: epochs, averaged weights (EMA), validation, the best epoch kept, state saved, early stopping."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Protocol

import mlx.core as mx
from mlx.utils import tree_unflatten

from ..errors import NonFiniteError, TrainingError
from ..events import EpochDone, Notice, OnEvent, Progress, StepDone
from ..messages import counted
from .options import LoopOptions
from .schedule import check_length, learning_rate, planned_steps, warmup_steps
from .state import Place, SavedRun, saved_parameters
from .step import Batch, Stepper, checkpointed_layers

Validate = Callable[[], Mapping[str, float]]  # metrics of the model as it is
Rank = tuple[float, float]


class Epochs(Protocol):
    """Training data whose order follows from the seed and the epoch alone."""

    def __len__(self) -> int:
        """The number of batches in an epoch."""

    def epoch(self, number: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from ``start_batch`` on."""


@dataclass(frozen=True)
class Trained:
    """The outcome of a training.

    Attributes:
        metric: the one that says which epoch is the best.
        best: its value after the best epoch.
        best_epoch: number of that epoch, from 0.
        epochs: number of epochs done.
        steps: number of steps done.
        stopped_early: whether patience ran out.
    """

    metric: str
    best: float
    best_epoch: int
    epochs: int
    steps: int
    stopped_early: bool


def rank(value: float, loss: float, larger_is_better: bool) -> Rank:
    """How good an epoch is: the better of two epochs has the larger rank.

    Args:
        value: of the metric, which decides; NaN is worse than every number.
        loss: of the same validation, which decides between equal values.
        larger_is_better: whether more of the metric is better.
    """
    signed = (value if larger_is_better else -value, -loss)
    first, second = (-math.inf if math.isnan(x) else x for x in signed)
    return first, second


class Loop:
    """One training run."""

    def __init__(
        self,
        stepper: Stepper,
        data: Epochs,
        options: LoopOptions,
        saved: SavedRun,
        validate: Validate,
        keep_best: Callable[[], None],
        on_event: OnEvent,
    ) -> None:
        """Prepare a training.

        Args:
            stepper: makes the steps, on its model.
            data: the training data.
            options: how long, how fast, when to stop.
            saved: state and log of the run.
            validate: called after every epoch.
            keep_best: called when the model is the best so far.
            on_event: called with progress, steps and epochs.
        """
        self._stepper, self._model, self._data, self._options = stepper, stepper.model, data, options
        self._saved, self._validate, self._keep_best, self._on_event = saved, validate, keep_best, on_event
        self.place = Place()
        self.total_steps = planned_steps(options, self.steps_per_epoch)
        self._ema = dict(saved_parameters(stepper.model)) if options.ema else None

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps in an epoch; the last step may have fewer batches."""
        return -(-len(self._data) // self._options.grad_accumulation_steps)

    @property
    def total_epochs(self) -> int:
        """The number of epochs in the whole run; the last epoch may be shorter."""
        return -(-self.total_steps // self.steps_per_epoch)

    def steps_from(self, place: Place) -> int:
        """The number of steps in a run resumed at ``place``: without ``epochs`` or ``iters``, as many as it had."""
        has_length = self._options.epochs is not None or self._options.iters is not None
        return planned_steps(self._options, self.steps_per_epoch) if has_length else place.total_steps

    def run(self, resume: bool = False) -> Trained:
        """Train.

        Args:
            resume: go on from the saved state; a run that was killed before it saved a state begins anew.

        Raises:
            TrainingError: the loss is not finite; the best epoch so far is kept.
            OutputError: state or log cannot be written.
            InputError: the saved state belongs to another run.
        """
        with checkpointed_layers(self._model, self._options.grad_checkpoint):
            return self._run(resume)

    def _run(self, resume: bool) -> Trained:
        if resume and self._saved.exists():
            self.place = self._saved.restore(self._model, self._stepper.optimizer, self._ema)
            self._miss_best()
            self._go_on()
        else:
            self._saved.begin()
            self.place.total_steps = self.total_steps
            self._save()  # from here on the run can be resumed
        self._progress()
        while self.place.epoch < self.total_epochs and not self._patience_is_over():
            self._train_epoch()
            self._end_epoch()
        place = self.place
        if place.best is None:  # the files of the best epoch were lost, and no epoch is left
            self._judge(place.epoch - 1)
            self._save()
        best = place.best if place.best is not None else float("nan")
        stopped = place.epoch < self.total_epochs
        return Trained(self._options.metric, best, place.best_epoch, place.epoch, place.step, stopped)

    def _miss_best(self) -> None:
        """Let the next epoch be the best if the files of the best one are lost."""
        if self.place.best is not None and not self._saved.has_best():
            self.place.best = None
            lost = f"the best epoch so far, {self.place.best_epoch + 1}, is not whole in {self._saved.folder}"
            self._on_event(Notice(f"{lost}: the best of what is still to come is kept"))

    def _go_on(self) -> None:
        """Set the end of a resumed run, and tell where it is."""
        place, options = self.place, self._options
        check_length(options, place.step, place.epoch, self._saved.folder)
        self.total_steps = total = self.steps_from(place)
        ended = place.batch == 0 and (place.step >= place.total_steps or self._patience_is_over())
        if total > place.total_steps and ended:
            place.stale = 0  # patience begins anew
            cut = place.step % self.steps_per_epoch
            if cut:  # --iters ended the run within an epoch, which goes on
                place.epoch, place.batch = place.epoch - 1, cut * options.grad_accumulation_steps
        if total != place.total_steps:
            rate = learning_rate(min(place.step, total - 1), total, options)
            self._on_event(
                Notice(
                    f"the run goes on from step {place.step:,} to {total:,} in place of {place.total_steps:,}: the"
                    f" {options.schedule} schedule reaches to the new end, and the learning rate is {rate:.3g} now",
                    is_warning=False,
                )
            )
        elif ended:
            early = ", as --patience has it" if place.step < total else ""
            message = f"this run has ended after {counted(place.step, 'step')}{early}"
            self._on_event(Notice(f"{message}: more --epochs let it go on", is_warning=False))
        place.total_steps = total
        self._save()

    def rehearse(self, steps: int) -> float:
        """The seconds per step, measured over some steps that change and save nothing."""
        batches = chain.from_iterable(self._data.epoch(number) for number in count())
        self._model.train()
        started = 0.0
        with checkpointed_layers(self._model, self._options.grad_checkpoint):
            for number in range(1 + steps):
                if number == 1:  # the first step compiles
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
            rate = learning_rate(place.step, self.total_steps, options)
            mx.random.seed(_step_seed(options.seed, place.step))  # dropout does not depend on earlier steps
            loss, norm = self._stepper.step(chunk, rate)
            if not math.isfinite(loss):
                raise TrainingError(self._advice(f"the loss is {loss} in step {place.step + 1}", rate))
            if not math.isfinite(norm):
                raise TrainingError(self._advice(f"the gradient is {norm} in step {place.step + 1}", rate))
            place.step, place.batch = place.step + 1, place.batch + len(chunk)
            self._average()
            values = {"loss": loss, "learning_rate": rate, "grad_norm": norm}
            self._saved.log(place, {"step": place.step, "epoch": place.epoch, **values})
            images = sum(len(batch.targets) for batch in chunk)
            self._on_event(StepDone(*self._position(), loss, rate, norm, images, mx.get_peak_memory()))
            self._progress()
            if place.step % options.save_every == 0:
                self._save()

    def _progress(self) -> None:
        self._on_event(Progress("training", self.place.step, self.total_steps, unit="steps"))

    def _position(self) -> tuple[int, int, int, int]:
        """Step, steps, epoch, epochs."""
        return self.place.step, self.total_steps, self.place.epoch, self.total_epochs

    def _advice(self, what: str, rate: float) -> str:
        best, folder = self.place.best_epoch + 1, self._saved.folder
        kept = f"the best epoch so far, {best}, is kept in {folder}" if best else "no epoch had ended yet"
        return (
            f"{what}, at a learning rate of {rate:.3g}: try a tenth of it in another --adapter-path"
            f" (--learning-rate {self._options.learning_rate / 10:.3g}), more --warmup or a smaller"
            f" --max-grad-norm; {kept}"
        )

    def _end_epoch(self) -> None:
        place = self.place
        values, better = self._judge(place.epoch)
        if better:
            place.stale = 0
        elif place.epoch * self.steps_per_epoch >= warmup_steps(self.total_steps, self._options.warmup):
            place.stale += 1
        self._saved.log(place, {"step": place.step, "epoch": place.epoch, "validation": values})
        self._on_event(EpochDone(*self._position(), values))
        place.epoch, place.batch = place.epoch + 1, 0
        self._save()

    def _judge(self, epoch: int) -> tuple[dict[str, float], bool]:
        """Validate after an epoch and keep the best model: the metrics, and whether this epoch is the best so far."""
        place, larger = self.place, self._options.larger_is_better
        self._model.eval()
        trained = saved_parameters(self._model)
        if self._ema is not None:
            self._model.update(tree_unflatten(list(self._ema.items())))
        values = self._validated()
        value, loss = values[self._options.metric], values["loss"]
        better = place.best is None or rank(value, loss, larger) > rank(place.best, place.best_loss, larger)
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
            rate = learning_rate(max(0, self.place.step - 1), self.total_steps, self._options)
            raise TrainingError(self._advice(f"{error} after step {self.place.step}", rate)) from error

    def _average(self) -> None:
        """Move the averaged weights a little towards the trained ones."""
        if self._ema is None:
            return
        decay = min(self._options.ema, (1 + self.place.step) / (10 + self.place.step))  # fast at first
        for path, x in saved_parameters(self._model).items():
            self._ema[path] = decay * self._ema[path] + (1 - decay) * x
        mx.eval(self._ema)

    def _save(self) -> None:
        self._saved.save(self.place, self._model, self._stepper.optimizer, self._ema)


def _step_seed(seed: int, step: int) -> int:
    """A seed for one step, far from those of its neighbours."""
    return (seed * 1_000_003 + step * 7919) % 2**32
