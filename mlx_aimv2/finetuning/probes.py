"""Probes: heads trained on the features of a frozen encoder; sweeps of learning rate and weight decay."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ..adapters.task import Task
from ..errors import TrainingError
from ..events import Notice, OnEvent, ignore
from ..models.classifier_heads import KnnHead, head_spec, make_head
from ..storage.atomic import replacing
from ..training.batches import Batches, BatchOptions, class_weights, image_weights
from ..training.loop import Loop, Rank, Trained, rank
from ..training.mixing import label_smoothing, multi_hot
from ..training.options import WITHOUT_DECAY
from ..training.state import FEATURES, SavedRun, Unsaved
from .artifacts import read_best, write_best
from .features import FeatureEpochs, Stored, compute_features
from .options import FinetuneOptions
from .prepared import ClassifierRun, make_stepper, validation_metrics, with_metric

SWEPT_RATES = (0.1, 0.3, 1.0, 3.0)  # factors of the learning rate
SWEPT_DECAYS = (0.0, 0.01, 0.1)
SWEEP = "sweep.json"


class HeadOnly(nn.Module):
    """A head without an encoder, from features to logits."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def __call__(self, features: mx.array) -> mx.array:
        """Logits (B, C) of features."""
        return self.head(features)


@dataclass(frozen=True)
class Features:
    """The features of a split, and its targets."""

    x: Stored  # (N, D) or (N, n, D)
    targets: np.ndarray  # (N, C)


def train_probe(run: ClassifierRun, on_event: OnEvent) -> Trained | None:
    """Train a head on a frozen encoder, and load the best epoch into ``run.model``; None for knn."""
    options, classifier = run.options, run.model
    train, val = (features_of(run, split, on_event) for split in ("train", "val"))
    if options.fine_tune_type == "knn":
        classifier.head = KnnHead.of(train.x[np.arange(len(train.x))], train.targets, options.neighbours)
        write_best(run)
        return None
    options = with_metric(options, run.dataset.multi_label)
    if options.sweep:
        options = _swept(run, options, train, val, on_event)
    loop = probe_loop(run, options, run.saved, train, val, lambda: write_best(run), on_event)
    trained = loop.run(options.resume)
    read_best(run)
    return trained


def features_of(run: ClassifierRun, split: str, on_event: OnEvent) -> Features:
    """The features of a split, from disk if they are there."""
    examples = run.dataset.split(split)
    images = run.processor.image_processor
    batches = Batches(run.dataset, images, BatchOptions(run.options.batch_size), split=split, training=False)
    made_by: dict[str, object] = {
        "base": asdict(run.model.trunk.origin),
        "preprocessing": images.settings(),
    }
    x = compute_features(run.model, batches, examples, made_by, run.folder / FEATURES, on_event)
    return Features(x, multi_hot([example.labels for example in examples], len(run.dataset.labels)))


def probe_loop(
    run: ClassifierRun,
    options: FinetuneOptions,
    saved: SavedRun,
    train: Features,
    val: Features,
    keep_best: Callable[[], None],
    on_event: OnEvent,
) -> Loop:
    """The training loop of a fresh head on features."""
    dataset, classifier = run.dataset, run.model
    mx.random.seed(options.seed)
    head = make_head(head_spec(classifier.head), classifier.trunk.config.hidden_size, len(dataset.labels))
    if run.start is not None and isinstance(run.start.task, Task):
        head = run.start.head(classifier.trunk.config.hidden_size)
    classifier.head, model = head, HeadOnly(head)
    weights = np.ones(len(train.x), dtype=np.float32)
    if options.class_weights == "balanced":
        weights = image_weights(train.targets, class_weights(dataset))
    targets = label_smoothing(train.targets, options.label_smoothing, dataset.multi_label)
    data = FeatureEpochs(train.x, targets, weights, options.batch_size, options.seed)

    def validate() -> Mapping[str, float]:
        size = 16 * options.batch_size
        logits = [
            np.array(model(mx.array(np.asarray(val.x[rows], dtype=np.float32))))
            for rows in np.split(np.arange(len(val.x)), range(size, len(val.x), size))
        ]
        return validation_metrics(np.concatenate(logits), dataset)

    stepper = make_stepper(model, options, dataset.multi_label)
    return Loop(stepper, data, options.loop, saved, validate, keep_best, on_event)


def sweep_grid(options: FinetuneOptions) -> list[tuple[float, float]]:
    """The learning rates and weight decays that a sweep tries."""
    decays = (0.0,) if options.optimizer in WITHOUT_DECAY else SWEPT_DECAYS
    return list(product((options.peak_learning_rate * factor for factor in SWEPT_RATES), decays))


def _swept(
    run: ClassifierRun, options: FinetuneOptions, train: Features, val: Features, on_event: OnEvent
) -> FinetuneOptions:
    """The options with the best learning rate and weight decay; a resumed run keeps its own."""
    path = run.folder / SWEEP
    tried = _read_sweep(path) if options.resume and run.saved.exists() else None
    if tried is None:
        tried = _sweep(run, options, train, val, on_event)
        with replacing(path) as partial:
            partial.write_text(json.dumps(tried, indent=2) + "\n", encoding="utf-8")
    rate, decay = tried[0]["learning_rate"], tried[0]["weight_decay"]
    return replace(options, learning_rate=rate, weight_decay=decay, sweep=False)


def _read_sweep(path: Path) -> list[dict[str, Any]] | None:
    """The saved results of a sweep, the best first; None if they cannot be read."""
    try:
        tried = json.loads(path.read_text(encoding="utf-8"))
        float(tried[0]["learning_rate"]), float(tried[0]["weight_decay"])
    except (OSError, ValueError, TypeError, LookupError):
        return None
    return list(tried)


def _sweep(
    run: ClassifierRun, options: FinetuneOptions, train: Features, val: Features, on_event: OnEvent
) -> list[dict[str, Any]]:
    """Every learning rate and weight decay with its result: the best first, failures last.

    Raises:
        TrainingError: all of them failed.
    """
    metric, larger, tried = options.best_metric, options.loop.larger_is_better, []

    def order(entry: Mapping[str, Any]) -> Rank:
        return (-math.inf, -math.inf) if entry["loss"] is None else rank(entry[metric], entry["loss"], larger)

    for rate, decay in sweep_grid(options):
        candidate = replace(options, learning_rate=rate, weight_decay=decay, sweep=False)
        loop = probe_loop(run, candidate, Unsaved(), train, val, lambda: None, ignore)
        result: dict[str, float | None] = {metric: None, "loss": None}
        message = "the loss is not finite"
        with suppress(TrainingError):
            best = loop.run().best
            result, message = {metric: best, "loss": loop.place.best_loss}, f"{metric} {best:.4f}"
        tried.append({"learning_rate": rate, "weight_decay": decay, **result})
        on_event(Notice(f"learning rate {rate:.3g}, weight decay {decay:.3g}: {message}", is_warning=False))
    tried.sort(key=order, reverse=True)
    if tried[0]["loss"] is None:
        raise TrainingError(
            f"the loss was not finite with any learning rate from {options.peak_learning_rate * SWEPT_RATES[0]:.3g}"
            " on: try a smaller --learning-rate in another --adapter-path"
        )
    return tried
