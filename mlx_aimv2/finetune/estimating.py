"""What a fine-tuning will take, from two steps of it that leave nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice

import mlx.core as mx
import numpy as np

from ..adapters.attach import count_trainable
from ..events import Notice, OnEvent, ignore
from .batches import Batches, BatchOptions
from .methods import METHODS
from .mixing import multi_hot
from .options import FinetuneOptions
from .prepared import ClassifierRun
from .probing import Features, probe_loop
from .running import WORKS, count_parameters, prepare
from .state import Nowhere

STEPS = 2


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Attributes:
        trainable: numbers that are trained.
        parameters: of the whole model.
        steps: of the whole run.
        epochs: of the whole run.
        seconds_before: for the features of all pictures, where the encoder is frozen.
        seconds_per_epoch: without validation.
        peak_bytes: of memory.
    """

    trainable: int
    parameters: int
    steps: int
    epochs: int
    seconds_before: float
    seconds_per_epoch: float
    peak_bytes: int

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.seconds_before + self.epochs * self.seconds_per_epoch


def estimate(options: FinetuneOptions, on_event: OnEvent = ignore) -> Estimate:
    """What a run would take; two steps of it are made, and nothing is written.

    Raises:
        InputError, OutputError, CheckpointError, HubError: see `finetune`.
    """
    run = prepare(options, on_event, keep=False)
    method, loop, before = METHODS[options.fine_tune_type], None, 0.0
    mx.reset_peak_memory()
    if method.frozen:
        before, features = _features(run)
        if method.head != "knn":
            train, val = (_as_many(run, split, features) for split in ("train", "val"))
            loop = probe_loop(run, options, Nowhere(), train, val, lambda: None, ignore)
    else:
        loop = WORKS[options.task].loop(run, ignore)
    step = loop.rehearse(STEPS) if loop else 0.0
    on_event(Notice(f"{STEPS} steps were made to measure; nothing was written"))
    return Estimate(
        trainable=count_trainable(run.model) if loop else 0,
        parameters=count_parameters(run.model),
        steps=loop.total_steps if loop else 0,
        epochs=loop.total_epochs if loop else 0,
        seconds_before=before,
        seconds_per_epoch=step * loop.steps_per_epoch if loop else 0.0,
        peak_bytes=mx.get_peak_memory(),
    )


def _features(run: ClassifierRun) -> tuple[float, np.ndarray]:
    """The seconds that the features of all pictures take, and those of one picture."""
    options = BatchOptions(run.options.batch_size)
    batches = Batches(run.dataset, run.processor.image_processor, options, training=False)
    run.classifier.eval()
    started, done = time.monotonic(), 0
    for number, batch in enumerate(islice(batches.epoch(), 1 + STEPS)):
        if number == 1:  # the one before has compiled what is to be compiled
            started, done = time.monotonic(), 0
        features = np.array(run.classifier.features(mx.array(batch.pixels)))
        done += len(features)
    count = len(run.dataset.train) + len(run.dataset.val)
    return (time.monotonic() - started) / done * count, features[0]


def _as_many(run: ClassifierRun, split: str, features: np.ndarray) -> Features:
    """A whole split whose pictures all look alike, which takes no memory."""
    examples = run.dataset.split(split)
    x = np.broadcast_to(features, (len(examples), *features.shape))
    return Features(x, multi_hot([example.labels for example in examples], len(run.dataset.labels)))
