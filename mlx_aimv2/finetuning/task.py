"""The interface of a fine-tuning task: read the data, build the model, train and evaluate it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..adapters.attach import AdapterConfig
from ..evaluation.labels import Evaluation
from ..evaluation.retrieval import RetrievalEvaluation
from ..events import OnEvent
from ..loading import AnyModel
from ..training.loop import Loop, Trained
from .options import FinetuneOptions
from .prepared import Data, Model, Prepared

TaskEvaluation = Evaluation | RetrievalEvaluation


class FinetuningTask(Protocol[Data, Model]):
    """A task: its data, its model, its training and its evaluation."""

    def read(self, options: FinetuneOptions, buffer: Any = None) -> Data:
        """The dataset: of a buffer of mlx-data, or else of the path in the options.

        Raises:
            InputError: there is no data, or it does not go with the options.
        """

    def record(self, dataset: Data) -> Mapping[str, Any]:
        """Which image is in which split, as plain values."""

    def build(
        self, model: AnyModel, dataset: Data, adapter: AdapterConfig | None, options: FinetuneOptions
    ) -> Model:
        """The model to train: a module with the encoder, or the pair, as its ``trunk``.

        Raises:
            InputError: the method cannot train this model.
        """

    def loop(self, run: Prepared[Data, Model], on_event: OnEvent) -> Loop:
        """The training loop, ready to start."""

    def train(self, run: Prepared[Data, Model], on_event: OnEvent) -> Trained | None:
        """Train, and load the best epoch into ``run.model``; None for knn, which trains nothing."""

    def evaluate(self, run: Prepared[Data, Model], split: str, on_event: OnEvent) -> TaskEvaluation:
        """Evaluate the model on a split."""
