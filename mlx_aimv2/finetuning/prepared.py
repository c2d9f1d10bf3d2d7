"""A run that is ready to start, and what its methods share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from ..adapters.adapter_folder import AdapterFolder
from ..adapters.attach import AdapterConfig
from ..adapters.task import TASK
from ..datasets.labelled import Dataset
from ..errors import InputError, NonFiniteError
from ..evaluation.metrics import measure, measure_multi_label
from ..models.classifier import Classifier
from ..processing.processor import Processor
from ..training.augment import Augmentation
from ..training.batches import BatchOptions
from ..training.losses import binary_cross_entropy, cross_entropy
from ..training.mixing import Mixing, multi_hot
from ..training.state import RunFolder
from ..training.step import Stepper, make_optimizer, multipliers
from .artifacts import base_of
from .options import FinetuneOptions
from .pair_model import Contrast
from .tasks import ONE_LABEL, SEVERAL_LABELS

# What a run may be given anew when it goes on; all else must be as it was.
# What the data holds a record guards, and the model its hash; more epochs or steps only move the end.
FREE = (
    "resume", "resume_adapter_file", "adapter_path", "save_every", "patience", "epochs", "iters", "model", "revision",
    "data", "exclude", "image_column", "label_column", "caption_column", "image_root",
)  # fmt: skip


Data = TypeVar("Data")
Model = TypeVar("Model", bound=Classifier | Contrast)


@dataclass(frozen=True)
class Prepared(Generic[Data, Model]):
    """A run that is ready to start.

    Attributes:
        options: as given.
        folder: where everything goes.
        dataset: without broken images.
        model: what is trained: the encoder with a fresh head, or the pair; with fresh adapters.
        processor: prepares images as in training.
        adapter: what is adapted, if that is the method.
        start: the folder with the weights that the run begins with; None for fresh ones.
    """

    options: FinetuneOptions
    folder: Path
    dataset: Data
    model: Model
    processor: Processor
    adapter: AdapterConfig | None
    start: AdapterFolder | None = None

    @property
    def classifier(self) -> Model:
        """The model, as those call it who train one."""
        return self.model

    @property
    def run_folder(self) -> RunFolder:
        """Where state and log go, and what must not change: options, and the weights the run began with."""
        fixed = {name: x for name, x in dataclasses.asdict(self.options).items() if name not in FREE}
        return RunFolder(self.folder, {**fixed, "checkpoint": base_of(self.model).checkpoint}, TASK)


ClassifierRun = Prepared[Dataset, Classifier]


def batch_options(options: FinetuneOptions) -> BatchOptions:
    """How training batches are made."""
    crop, jitter = options.random_resized_crop, options.color_jitter
    augmentation = Augmentation(
        random_resized_crop=(crop, 1.0) if crop else None,
        flip=options.flip,
        randaugment=options.randaugment,
        magnitude=options.randaugment_magnitude,
        brightness=jitter,
        contrast=jitter,
        saturation=jitter,
    )
    mixing = Mixing(mixup=options.mixup, cutmix=options.cutmix)
    return BatchOptions(
        batch_size=options.batch_size,
        seed=options.seed,
        augmentation=augmentation if augmentation != Augmentation() else None,
        mixing=mixing if mixing != Mixing() else None,
        label_smoothing=options.label_smoothing,
    )


def with_metric(options: FinetuneOptions, multi_label: bool) -> FinetuneOptions:
    """The options with a metric that such labels have, where none is given.

    Raises:
        InputError: one is given that they do not have.
    """
    if options.metric is None:
        return dataclasses.replace(options, metric="map") if multi_label else options
    if multi_label and options.metric in ONE_LABEL:
        raise InputError(
            f"--metric {options.metric} is for images with one label: use map, exact_match or macro_f1"
        )
    if not multi_label and options.metric in SEVERAL_LABELS:
        raise InputError(f"--metric {options.metric} is for images with several labels: use top1 or macro_f1")
    return options


def make_stepper(model: nn.Module, options: FinetuneOptions, multi_label: bool) -> Stepper:
    """What makes the steps of a model with an attribute `head`."""
    paths = list(dict(tree_flatten(model.trainable_parameters())))
    peak = options.peak_learning_rate
    layers = model.trunk.config.num_hidden_layers if isinstance(model, Classifier) else 0
    return Stepper(
        model,
        make_optimizer(options.optimizer, options.decay),
        binary_cross_entropy if multi_label else cross_entropy,
        max_grad_norm=options.max_grad_norm,
        multipliers=multipliers(paths, layers, options.layer_decay, (options.head_lr or peak) / peak),
    )


def validation_metrics(logits: np.ndarray, dataset: Dataset) -> dict[str, float]:
    """The numbers that say which epoch is best, of logits (N, C) of the images for validation.

    Raises:
        NonFiniteError: a logit is NaN or infinity.
    """
    if not np.isfinite(logits).all():
        raise NonFiniteError("validation gives NaN or infinity")
    targets = multi_hot([example.labels for example in dataset.val], len(dataset.labels))
    if dataset.multi_label:
        found = measure_multi_label(logits, targets.astype(np.int64), dataset.labels)
        shares = {"map": found.map or 0.0, "exact_match": found.exact_match or 0.0}
        return {"loss": found.nll, "macro_f1": found.macro_f1, **shares}
    found = measure(logits, targets.argmax(axis=1), dataset.labels)
    return {"loss": found.nll, "macro_f1": found.macro_f1, "top1": found.top1 or 0.0}
