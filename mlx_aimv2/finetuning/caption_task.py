"""The task of captions: contrastive training of an image-text pair."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np

from ..adapters.attach import AdapterConfig
from ..datasets.buffers import read_buffer_captions
from ..datasets.captioned import CaptionDataset, read_captions
from ..datasets.record import relative_path
from ..datasets.rows import SPLITS
from ..errors import InputError
from ..evaluation.retrieval import RetrievalEvaluation, evaluate_retrieval, retrieve
from ..events import Notice, OnEvent
from ..loading import AnyModel
from ..messages import counted
from ..training.batches import BatchOptions
from ..training.caption_batches import PairBatches, same_captions
from ..training.loop import Loop, Trained
from ..training.losses import contrastive
from ..training.step import Stepper, make_optimizer
from .artifacts import read_best, write_best
from .options import FinetuneOptions
from .pair_model import PairModel, build_pair, pair_multipliers
from .prepared import PairRun, batch_options

SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)
TEXTS = 256  # captions computed at once in validation


class CaptionTask:
    """The task of captions; see `FinetuningTask`."""

    def read(self, options: FinetuneOptions, buffer: Any = None) -> CaptionDataset:
        """Images with captions."""
        if buffer is not None:
            dataset = read_buffer_captions(buffer, val_fraction=options.val_fraction, seed=options.seed)
        elif not options.data:
            raise InputError(
                "there is no data: give --data FILE, a .csv or .jsonl file with path and caption, or a folder with a"
                " .txt beside each image"
            )
        else:
            dataset = read_captions(
                options.data, val_fraction=options.val_fraction, seed=options.seed, reading=options.reading
            )
        if len(dataset.train) < 2:
            raise InputError("there is only one training image, and nothing to tell it apart from: add some")
        return dataset

    def record(self, dataset: CaptionDataset) -> Mapping[str, Any]:
        """Which image is in which split, and a hash of all captions."""
        digest = hashlib.sha256()
        record: dict[str, Any] = {"seed": dataset.seed, "val_fraction": dataset.val_fraction}
        for split in SPLITS:
            examples = dataset.split(split)
            for example in examples:
                digest.update(json.dumps(example.captions).encode())
            record[split] = [relative_path(example.path, dataset.root) for example in examples]
        return {**record, "captions": digest.hexdigest()[:16]}

    def build(
        self,
        model: AnyModel,
        dataset: CaptionDataset,
        adapter: AdapterConfig | None,
        options: FinetuneOptions,
    ) -> PairModel:
        """The pair, with all that is trained unfrozen."""
        return build_pair(model, adapter, options)

    def train(self, run: PairRun, on_event: OnEvent) -> Trained | None:
        """Train the pair."""
        trained = self.loop(run, on_event).run(run.options.resume)
        read_best(run)
        return trained

    def loop(self, run: PairRun, on_event: OnEvent) -> Loop:
        """The training loop of the pair."""
        options, model = run.options, run.model
        batches = PairBatches(run.dataset, run.processor, batch_options(options), on_event=on_event)
        validation = PairBatches(
            run.dataset, run.processor, BatchOptions(options.batch_size), split="val", training=False
        )
        _warn_of_mirrors(run, on_event)

        stepper, validate = make_pair_stepper(model, options), Validation(model, validation)
        return Loop(stepper, batches, options.loop, run.saved, validate, lambda: write_best(run), on_event)

    def evaluate(self, run: PairRun, split: str, on_event: OnEvent) -> RetrievalEvaluation:
        """Retrieval in both directions among the images and captions of a split."""
        run.model.eval()
        examples = [(example.image, example.captions) for example in run.dataset.split(split)]
        return evaluate_retrieval(
            run.model.trunk, run.processor, examples, batch_size=run.options.batch_size, on_event=on_event
        )


def make_pair_stepper(model: PairModel, options: FinetuneOptions) -> Stepper:
    """The stepper of a pair."""
    most = math.log(model.trunk.config.max_logit_scale) - 1e-6  # a scale at the bound itself has no gradient
    return Stepper(
        model,
        make_optimizer(options.optimizer, options.decay),
        contrastive,
        max_grad_norm=options.max_grad_norm,
        multipliers=pair_multipliers(model, options),
        bounds={"trunk.logit_scale": (0.0, most)},
    )


def _warn_of_mirrors(run: PairRun, on_event: OnEvent) -> None:
    if not run.options.flip:
        return
    if sided := sum(any(map(SIDES.search, example.captions)) for example in run.dataset.train):
        images = counted(sided, "training image")
        on_event(Notice(f"--flip mirrors images, and captions of {images} say left or right"))


class Validation:
    """Loss and retrieval metrics on the validation split; it holds its vectors, never all its images."""

    def __init__(self, model: PairModel, batches: PairBatches) -> None:
        self._model, self._batches = model, batches
        self._kept: dict[str, np.ndarray] = {}  # vectors of frozen towers

    def __call__(self) -> Mapping[str, float]:
        """The metrics of the model as it is.

        Raises:
            NonFiniteError: the model gives NaN or infinity.
        """
        images, texts = self._vectors("vision"), self._vectors("text")
        metrics, _ = retrieve(images, texts, self._batches.belonging())
        return {"loss": self._loss(images, texts), **metrics.numbers()}

    def _vectors(self, tower: str) -> np.ndarray:
        if tower in self._kept:
            return self._kept[tower]
        if tower == "vision":
            batches = [
                np.array(self._model.images(mx.array(batch.pixels))) for batch in self._batches.epoch()
            ]
        else:
            table = self._batches.table
            chunks = (np.arange(at, min(at + TEXTS, len(table))) for at in range(0, len(table), TEXTS))
            batches = [np.array(self._model.texts(mx.array(table.rows(chunk)))) for chunk in chunks]
        vectors = np.concatenate(batches)
        if tower in self._model.frozen:
            self._kept[tower] = vectors
        return vectors

    def _loss(self, images: np.ndarray, texts: np.ndarray) -> float:
        """The loss in batches as large as in training, each image with its first caption, in a fixed random order."""
        order = np.argsort(np.random.PCG64(0).random_raw(len(images)), kind="stable")
        captions = self._batches.captions(order, 0)
        factor, total = self._model.trunk.logit_factor(), 0.0
        for chunk in np.array_split(np.arange(len(order)), len(self._batches)):
            logits = factor * mx.array(images[order[chunk]]) @ mx.array(texts[captions[chunk]]).T
            targets = mx.array(same_captions(captions[chunk]))
            loss, _ = contrastive(logits, targets, mx.ones(len(chunk)))
            total += float(loss)
        return total / len(order)
