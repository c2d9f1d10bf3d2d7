"""`estimate`, for `finetune --dry-run`: time, memory and disk space of a run, measured over two steps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import mlx.core as mx
import numpy as np

from ..adapters.attach import count_trainable
from ..backend.random_state import caller_random_state
from ..events import Notice, OnEvent, ignore, warn
from ..training.batches import Batches, BatchOptions
from ..training.loop import Loop
from ..training.mixing import multi_hot
from ..training.schedule import check_length
from ..training.state import Unsaved
from .methods import METHODS
from .options import FinetuneOptions
from .prepared import ClassifierRun, PairRun
from .probes import Features, probe_loop, sweep_grid
from .run import FINETUNING_TASKS, count_parameters, prepare

STEPS = 2


@dataclass(frozen=True)
class Estimate:
    """Time, memory and disk space of a run.

    Attributes:
        trainable: number of trained parameters.
        parameters: number of parameters of the whole model.
        steps: number of steps of the run, or of the rest of a resumed run.
        epochs: likewise.
        seconds_before: for the features of all images, if the encoder is frozen.
        runs: number of trainings: one, and one for every candidate of a sweep.
        seconds_per_step: without validation.
        seconds_per_epoch: without validation.
        peak_bytes: of memory, with features in memory.
        feature_bytes: of features on disk.
    """

    trainable: int
    parameters: int
    steps: int
    epochs: int
    seconds_before: float
    runs: int
    seconds_per_step: float
    seconds_per_epoch: float
    peak_bytes: int
    feature_bytes: int

    @property
    def seconds(self) -> float:
        """Of the whole run, without validation."""
        return self.seconds_before + self.runs * self.steps * self.seconds_per_step


@caller_random_state()
def estimate(options: FinetuneOptions, on_event: OnEvent = warn, *, data: Any = None) -> Estimate:
    """Measure two steps of a run, perhaps with a buffer as ``data``, as for `finetune`; nothing is written.

    Raises:
        InputError, OutputError, CheckpointError, HubError: see `finetune`.
    """
    prepared = prepare(options, on_event, data=data)
    method, loop = METHODS[options.fine_tune_type], None
    seconds_before, disk_bytes, memory_bytes = 0.0, 0, 0
    mx.reset_peak_memory()
    if method.frozen:
        run = cast("ClassifierRun", prepared)  # no other task has frozen methods
        seconds_before, features = _features(run)
        disk_bytes, memory_bytes = _sizes(run, features)
        if method.head != "knn":
            train, val = (_repeated(run, split, features) for split in ("train", "val"))
            loop = probe_loop(run, options, Unsaved(), train, val, lambda: None, ignore)
    else:
        loop = FINETUNING_TASKS[options.task].loop(prepared, ignore)
    step, steps = (loop.rehearse(STEPS), _steps(prepared, loop)) if loop else (0.0, 0)
    on_event(Notice(f"{STEPS} steps were made to measure; nothing was written", is_warning=False))
    return Estimate(
        trainable=count_trainable(prepared.model) if loop else 0,
        parameters=count_parameters(prepared.model),
        steps=steps,
        epochs=-(-steps // loop.steps_per_epoch) if loop else 0,
        seconds_before=seconds_before,
        runs=1 + len(sweep_grid(options)) if options.sweep else 1,
        seconds_per_step=step,
        seconds_per_epoch=step * min(loop.steps_per_epoch, steps) if loop else 0.0,
        peak_bytes=mx.get_peak_memory() + memory_bytes,
        feature_bytes=disk_bytes,
    )


def _steps(run: ClassifierRun | PairRun, loop: Loop) -> int:
    """The number of steps of the run, or of the rest of a resumed run."""
    if not (run.options.resume and run.saved.exists()):
        return loop.total_steps
    place = run.saved.check()
    check_length(run.options.loop, place.step, place.epoch, run.folder)
    return max(0, loop.steps_from(place) - place.step)


def _features(run: ClassifierRun) -> tuple[float, np.ndarray]:
    """The seconds for the features of all images, and the features of one image."""
    options = BatchOptions(run.options.batch_size)
    batches = Batches(run.dataset, run.processor.image_processor, options, training=False)
    run.model.eval()
    started, done = time.monotonic(), 0
    for number, batch in enumerate(islice(batches.epoch(), 1 + STEPS)):
        if number == 1:  # the first batch compiles
            started, done = time.monotonic(), 0
        features = np.array(run.model.features(mx.array(batch.pixels)))
        done += len(features)
    count = len(run.dataset.train) + len(run.dataset.val)
    return (time.monotonic() - started) / done * count, features[0]


def _sizes(run: ClassifierRun, features: np.ndarray) -> tuple[int, int]:
    """Bytes on disk and in memory of the features of all images: tokens (n, D) stay on disk, in float16."""
    count = len(run.dataset.train) + len(run.dataset.val)
    if features.ndim == 2:
        return count * features.size * 2, 0
    return count * features.size * 4, count * features.size * 4


def _repeated(run: ClassifierRun, split: str, features: np.ndarray) -> Features:
    """A split whose images all have the same features, which takes no memory."""
    examples = run.dataset.split(split)
    x = np.broadcast_to(features, (len(examples), *features.shape))
    return Features(x, multi_hot([example.labels for example in examples], len(run.dataset.labels)))
