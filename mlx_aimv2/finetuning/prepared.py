"""`Prepared`: a run that is ready to start; what may change when it is resumed; steps and metrics of its methods."""

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
from ..checkpoints.identity import Origin
from ..datasets.captioned import CaptionDataset
from ..datasets.labelled import Dataset
from ..errors import InputError, NonFiniteError
from ..evaluation.metrics import measure, measure_multi_label
from ..models.classifier import Classifier
from ..models.classifier_heads import FeatureNorm
from ..processing.processor import Processor
from ..training.augment import Augmentation
from ..training.batches import BatchOptions
from ..training.losses import binary_cross_entropy, cross_entropy
from ..training.mixing import Mixing, multi_hot
from ..training.state import SavedRun
from ..training.step import Stepper, make_optimizer, multipliers
from .options import FinetuneOptions
from .pair_model import PairModel
from .task_rules import ONE_LABEL, SEVERAL_LABELS

# Options that may change when a run is resumed. The data is checked against its record and the model by its hash;
# more epochs or steps only move the end.
FREE = (
    "resume", "resume_adapter_file", "adapter_path", "save_every", "patience", "epochs", "iters", "model", "revision",
    "data", "exclude", "decode", "image_column", "label_column", "caption_column", "image_root",
)  # fmt: skip

Data = TypeVar("Data", Dataset, CaptionDataset)
Model = TypeVar("Model", bound=Classifier | PairModel)


@dataclass(frozen=True)
class Prepared(Generic[Data, Model]):
    """A run that is ready to start.

    Attributes:
        options: of the run.
        folder: of the run.
        dataset: without broken images.
        model: the encoder with a fresh head, or the pair; with fresh adapters.
        processor: prepares images as in training.
        adapter: of LoRA and DoRA; None for other methods.
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
    def saved(self) -> SavedRun:
        """State and log, with the options and weights that must be the same in a resumed run."""
        fixed = {name: x for name, x in dataclasses.asdict(self.options).items() if name not in FREE}
        return SavedRun(self.folder, {**fixed, "checkpoint": base_of(self.model).checkpoint}, TASK)


ClassifierRun = Prepared[Dataset, Classifier]
PairRun = Prepared[CaptionDataset, PairModel]


def base_of(model: Classifier | PairModel) -> Origin:
    """The origin of the encoder, or of the pair."""
    origin = getattr(model.trunk, "origin", None)
    return origin or Origin("unnamed", None, "", "", "float32")


def batch_options(options: FinetuneOptions) -> BatchOptions:
    """Options of the training batches."""
    crop, jitter = options.random_resized_crop, options.color_jitter
    augmentation = Augmentation(
        random_resized_crop=(crop, 1.0) if crop else None,
        flip=options.flip,
        randaugment=options.randaugment,
        magnitude=options.randaugment_magnitude,
        brightness=jitter,
        contrast=jitter,
        saturation=jitter,
        resize=options.resize,
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
    """The options with the default metric of such labels, unless they name a metric.

    Raises:
        InputError: such labels do not have the metric.
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
    """The stepper of a model with an attribute ``head``."""
    paths = list(dict(tree_flatten(model.trainable_parameters())))
    peak = options.peak_learning_rate
    layers = model.trunk.config.num_hidden_layers if isinstance(model, Classifier) else 0
    return Stepper(
        model,
        make_optimizer(options.optimizer, options.decay),
        binary_cross_entropy if multi_label else cross_entropy,
        max_grad_norm=options.max_grad_norm,
        multipliers=multipliers(paths, layers, options.layer_decay, (options.head_lr or peak) / peak),
        by_example=not any(isinstance(module, FeatureNorm) for module in model.modules()),
    )


def validation_metrics(logits: np.ndarray, dataset: Dataset) -> dict[str, float]:
    """Metrics of the validation images, from logits (N, C).

    Raises:
        NonFiniteError: a logit is NaN or infinity.
    """
    if not np.isfinite(logits).all():
        raise NonFiniteError("validation gives NaN or infinity")
    targets = multi_hot([example.labels for example in dataset.val], len(dataset.labels))
    if dataset.multi_label:
        metrics = measure_multi_label(logits, targets.astype(np.int64), dataset.labels)
        shares = {"map": metrics.map or 0.0, "exact_match": metrics.exact_match or 0.0}
    else:
        metrics = measure(logits, targets.argmax(axis=1), dataset.labels)
        shares = {"top1": metrics.top1 or 0.0}
    return {"loss": metrics.nll, "macro_f1": metrics.macro_f1, **shares}
