"""The task of labels: training of a head on an encoder that is frozen, adapted or trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from ..adapters.attach import AdapterConfig
from ..datasets.buffers import read_buffer_labels
from ..datasets.labelled import Dataset, read_dataset
from ..datasets.record import split_record
from ..errors import InputError
from ..evaluation.labels import Evaluation, evaluate_labels
from ..events import OnEvent
from ..loading import AnyModel
from ..models.classifier import Classifier
from ..training.batches import Batches, BatchOptions, class_weights
from ..training.loop import Loop, Trained
from .artifacts import read_best, write_best
from .classifier_model import build_classifier
from .methods import METHODS
from .options import FinetuneOptions
from .prepared import ClassifierRun, batch_options, make_stepper, validation_metrics, with_metric
from .probes import train_probe


class LabelTask:
    """The task of labels; see `FinetuningTask`."""

    def read(self, options: FinetuneOptions, buffer: Any = None) -> Dataset:
        """Labelled images."""
        if buffer is not None:
            dataset = read_buffer_labels(buffer, val_fraction=options.val_fraction, seed=options.seed)
        elif not options.data:
            raise InputError("there is no data: give --data FOLDER, with a folder per class in it")
        else:
            dataset = read_dataset(
                options.data, val_fraction=options.val_fraction, seed=options.seed, reading=options.reading
            )
        if options.fine_tune_type == "knn" and dataset.multi_label:
            raise InputError(
                "knn votes for one label, and these images have several: use linear or attentive"
            )
        if dataset.val:
            with_metric(options, dataset.multi_label)
        return dataset

    def record(self, dataset: Dataset) -> Mapping[str, Any]:
        """Which image is in which split."""
        return split_record(dataset)

    def build(
        self, model: AnyModel, dataset: Dataset, adapter: AdapterConfig | None, options: FinetuneOptions
    ) -> Classifier:
        """The encoder with a fresh head."""
        return build_classifier(model, dataset, options)

    def train(self, run: ClassifierRun, on_event: OnEvent) -> Trained | None:
        """Train a head on stored features, or head and encoder together."""
        if METHODS[run.options.fine_tune_type].frozen:
            return train_probe(run, on_event)
        trained = self.loop(run, on_event).run(run.options.resume)
        read_best(run)
        return trained

    def loop(self, run: ClassifierRun, on_event: OnEvent) -> Loop:
        """The training loop of an encoder."""
        dataset, classifier = run.dataset, run.model
        options = with_metric(run.options, dataset.multi_label)
        images = run.processor.image_processor
        weights = class_weights(dataset) if options.class_weights == "balanced" else None
        batches = Batches(dataset, images, batch_options(options), weights=weights)
        validation = Batches(dataset, images, BatchOptions(options.batch_size), split="val", training=False)

        def validate() -> Mapping[str, float]:
            logits = [np.array(classifier(mx.array(batch.pixels))) for batch in validation.epoch()]
            return validation_metrics(np.concatenate(logits), dataset)

        stepper = make_stepper(classifier, options, dataset.multi_label)
        return Loop(stepper, batches, options.loop, run.saved, validate, lambda: write_best(run), on_event)

    def evaluate(self, run: ClassifierRun, split: str, on_event: OnEvent) -> Evaluation:
        """The metrics of the classifier on a split."""
        dataset = run.dataset
        return evaluate_labels(
            run.model,
            run.processor,
            [(example.image, example.labels) for example in dataset.split(split)],
            dataset.labels,
            batch_size=run.options.batch_size,
            on_event=on_event,
        )
