"""A small model, its data and its loop, without images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_aimv2.events import Event
from mlx_aimv2.finetuning.options import FinetuneOptions
from mlx_aimv2.models.classifier_heads import LinearHead
from mlx_aimv2.models.layers import Dropout
from mlx_aimv2.training.loop import Loop
from mlx_aimv2.training.losses import cross_entropy
from mlx_aimv2.training.state import SavedRun
from mlx_aimv2.training.step import Stepper, make_optimizer

WIDTH, CLASSES = 6, 3


@dataclass
class Rows:
    """A batch of plain vectors."""

    pixels: np.ndarray
    targets: np.ndarray
    weights: np.ndarray

    @property
    def inputs(self):
        return (self.pixels,)

    def __getitem__(self, rows: slice | np.ndarray) -> Rows:
        return Rows(self.pixels[rows], self.targets[rows], self.weights[rows])


class Data:
    """Vectors of three classes in batches, in another order each epoch."""

    def __init__(self, count: int = 10, batch_size: int = 4) -> None:
        rng = np.random.default_rng(0)
        self.labels = np.arange(count) % CLASSES
        x = rng.normal(0, 0.4, (count, WIDTH)) + np.eye(CLASSES, WIDTH)[self.labels]
        self.x, self.batch_size = x.astype(np.float32), batch_size
        self.taken: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return -(-len(self.x) // self.batch_size)

    def epoch(self, number: int, start_batch: int = 0) -> Iterator[Rows]:
        order = np.random.default_rng(number).permutation(len(self.x))
        for batch in range(start_batch, len(self)):
            chosen = order[batch * self.batch_size :][: self.batch_size]
            self.taken += [(number, int(index)) for index in chosen]
            targets = np.eye(CLASSES, dtype=np.float32)[self.labels[chosen]]
            yield Rows(self.x[chosen], targets, np.ones(len(chosen), np.float32))


class Net(nn.Module):
    """Something with dropout, and a head with running averages."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.dropout, self.head = nn.Linear(WIDTH, 8), Dropout(0.2), LinearHead(8, CLASSES, True)

    def __call__(self, x: mx.array) -> mx.array:
        return self.head(self.dropout(nn.gelu(self.body(x))))


class Run:
    """A loop with all it needs; `events` and `kept` say what happened."""

    def __init__(
        self,
        folder: Path,
        validate: Callable[[], Mapping[str, float]] | None = None,
        data: Any = None,
        **given: Any,
    ) -> None:
        options = FinetuneOptions(**{"epochs": 3, "learning_rate": 0.02, "seed": 3, "ema": 0.9, **given})
        folder.mkdir(exist_ok=True)
        mx.random.seed(0)
        self.model, self.data, self.options = Net(), data or Data(), options
        mx.eval(self.model.parameters())
        self.events: list[Event] = []
        self.kept: list[dict[str, np.ndarray]] = []
        self.saved = SavedRun(folder, {"seed": options.seed, "learning_rate": options.learning_rate})
        self.stepper = Stepper(
            self.model, make_optimizer(options.optimizer, 0.01), cross_entropy, max_grad_norm=1.0
        )
        self.loop = Loop(
            self.stepper,
            self.data,
            options.loop,
            self.saved,
            validate or self.validate,
            lambda: self.kept.append(self.weights()),
            self.events.append,
        )

    def weights(self) -> dict[str, np.ndarray]:
        from mlx.utils import tree_flatten

        return {name: np.array(x) for name, x in dict(tree_flatten(self.model.parameters())).items()}

    def validate(self) -> dict[str, float]:
        logits = np.array(self.model(mx.array(self.data.x)))
        right = float((logits.argmax(axis=1) == self.data.labels).mean())
        return {"top1": right, "loss": float(-logits[np.arange(len(logits)), self.data.labels].mean())}
