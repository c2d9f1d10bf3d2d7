"""`LoopOptions`: the options that the training loop reads; and the names of the optimizers. Imports no MLX."""

from __future__ import annotations

from dataclasses import dataclass

OPTIMIZERS = (
    "adamw", "adam", "sgd", "lion", "adafactor", "muon", "rmsprop", "adagrad", "adadelta", "adamax",
)  # fmt: skip
WITHOUT_DECAY = ("adam", "rmsprop", "adagrad", "adadelta", "adamax")  # of the optimizers


@dataclass(frozen=True)
class LoopOptions:
    """How long a training is, how fast it learns, and which epoch is the best.

    Attributes:
        metric: the validation metric that says which epoch is the best.
        larger_is_better: whether more of this metric is better.
        learning_rate: the highest one.
        schedule: a name in `SCHEDULES`.
        warmup: the part of all steps in which the learning rate rises.
        epochs: of the whole run; None for as many as ``least_steps`` needs.
        iters: steps of the whole run; they go before ``epochs``.
        least_steps: steps that a run without ``epochs`` and ``iters`` has at least.
        grad_accumulation_steps: batches whose gradients make one step.
        ema: decay of the averaged weights; 0 for no average.
        patience: epochs without improvement after which the run stops; 0 for never.
        save_every: steps between saved states, besides every epoch.
        grad_checkpoint: whether layers are computed again in the backward pass: less memory, more time.
        seed: of dropout.
    """

    metric: str
    larger_is_better: bool
    learning_rate: float
    schedule: str = "cosine"
    warmup: float = 0.1
    epochs: int | None = None
    iters: int | None = None
    least_steps: int = 0
    grad_accumulation_steps: int = 1
    ema: float = 0.0
    patience: int = 0
    save_every: int = 100
    grad_checkpoint: bool = False
    seed: int = 0
