"""One step of training: gradients of some batches averaged, clipped, applied."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from ..backend.device import on_cpu
from ..backend.threads import Compiled, computing
from .losses import Sums

Arrays = tuple[mx.array, ...]
Tree = Any  # nested dicts and lists of arrays, as MLX has them
Loss = Callable[[mx.array, mx.array, mx.array], Sums]

OPTIMIZERS: dict[str, Callable[[float], optim.Optimizer]] = {
    "adamw": lambda decay: optim.AdamW(0.0, weight_decay=decay, bias_correction=True),
    "adam": lambda decay: optim.Adam(0.0, bias_correction=True),
    "sgd": lambda decay: optim.SGD(0.0, momentum=0.9, weight_decay=decay),
    "lion": lambda decay: optim.Lion(0.0, weight_decay=decay),
    "adafactor": lambda decay: optim.Adafactor(
        0.0, weight_decay=decay, relative_step=False, scale_parameter=False
    ),
    "muon": lambda decay: optim.Muon(0.0, weight_decay=decay),
    "rmsprop": lambda decay: optim.RMSprop(0.0),
    "adagrad": lambda decay: optim.Adagrad(0.0),
    "adadelta": lambda decay: optim.AdaDelta(0.0),
    "adamax": lambda decay: optim.Adamax(0.0),
}


def make_optimizer(name: str, decay: float) -> optim.Optimizer:
    """One of `OPTIMIZERS`; gains, biases, DoRA's lengths and a logit scale do not decay, as in CLIP (section 2.5)."""
    make = OPTIMIZERS[name]
    return optim.MultiOptimizer([make(0.0), make(decay)], [lambda path, x: x.ndim < 2])


class Batch(Protocol):
    """What a step is made of."""

    @property
    def inputs(self) -> tuple[np.ndarray, ...]:
        """What the model is called with: images (B, H, W, 3), or features (B, ...); token ids."""

    @property
    def targets(self) -> np.ndarray:
        """(B, C)."""

    @property
    def weights(self) -> np.ndarray:
        """(B,)."""


class Stepper:
    """Makes the steps of one model; compiled on a GPU.

    Attributes:
        model: what is trained.
        optimizer: its state is part of a run's.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: optim.Optimizer,
        loss: Loss,
        *,
        max_grad_norm: float = 0.0,
        multipliers: Mapping[str, float] | None = None,
        bounds: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """Get ready.

        Args:
            model: from a batch's inputs (B, ...) to logits (B, C).
            optimizer: its learning rate is set for every step.
            loss: of logits, targets and weights, as sums.
            max_grad_norm: gradients are clipped to this norm; 0 for not at all.
            multipliers: what the learning rate of a parameter is multiplied by, by its path; 1 where not named.
            bounds: what a parameter is held between, by its path; anything where not named.
        """
        self.model, self.optimizer = model, optimizer
        self._max_grad_norm = max_grad_norm
        self._multipliers = {path: m for path, m in (multipliers or {}).items() if m != 1}
        self._bounds = dict(bounds or {})
        optimizer.init(model.trainable_parameters())

        def summed(model: nn.Module, inputs: Arrays, targets: mx.array, weights: mx.array) -> Sums:
            return loss(model(*inputs), targets, weights)

        self._gradients = nn.value_and_grad(model, summed)
        self._compute: Callable[..., Any] = self._one_batch
        self._apply: Callable[..., Any] = self._update
        if not on_cpu():  # where it costs little and helps much
            state = [model.state, optimizer.state, mx.random.state]
            self._compute = Compiled(self._one_batch, inputs=state, outputs=state)
            self._apply = Compiled(self._update, inputs=state, outputs=state)

    @computing
    def step(self, batches: Sequence[Batch], learning_rate: float) -> tuple[float, float]:
        """Make one step of one or several batches.

        Returns:
            The mean loss, and the norm of the gradient before clipping. Parameters are only changed where both are
            finite.
        """
        total: Tree = None
        for batch in batches:
            inputs = tuple(mx.array(x) for x in batch.inputs)
            sums, gradients = self._compute(inputs, mx.array(batch.targets), mx.array(batch.weights))
            found = [*sums, gradients]
            total = found if total is None else tree_map(mx.add, total, found)
            mx.eval(total)  # before the next batch: only one batch's activations are held
        loss, weight, gradients = total
        gradients = tree_map(lambda g: g / weight, gradients)
        squares = [mx.square(g.astype(mx.float32)).sum() for g in dict(tree_flatten(gradients)).values()]
        mean, length = (float(np.array(x)) for x in (loss / weight, mx.sqrt(mx.stack(squares).sum())))
        if np.isfinite(mean) and np.isfinite(length):
            self.optimizer.learning_rate = mx.array(learning_rate)
            clip = min(1.0, self._max_grad_norm / (length + 1e-6)) if self._max_grad_norm else 1.0
            self._apply(gradients, mx.array(clip))
            mx.eval(self.model.parameters(), self.optimizer.state)
        return mean, length

    def _one_batch(self, inputs: Arrays, targets: mx.array, weights: mx.array) -> tuple[Sums, Tree]:
        return self._gradients(self.model, inputs, targets, weights)

    def _update(self, gradients: Tree, clip: mx.array) -> None:
        gradients = tree_map(lambda g: (g * clip).astype(g.dtype), gradients)
        before = self.model.trainable_parameters()
        after = self.optimizer.apply_gradients(gradients, before)
        if self._multipliers:
            after = self._slowed(before, after)
        if self._bounds:
            after = self._bounded(after)
        self.model.update(after)

    def _slowed(self, before: Tree, after: Tree) -> Tree:
        """A parameter's way times its multiplier: the same as a learning rate times it, for every optimizer."""
        old = dict(tree_flatten(before))
        new = dict(tree_flatten(after))
        for path, factor in self._multipliers.items():
            new[path] = old[path] + factor * (new[path] - old[path])
        return tree_unflatten(list(new.items()))

    def _bounded(self, after: Tree) -> Tree:
        new = dict(tree_flatten(after))
        for path, (least, most) in self._bounds.items():
            if path in new:
                new[path] = mx.clip(new[path], least, most)
        return tree_unflatten(list(new.items()))


@contextlib.contextmanager
def checkpointed_layers(model: nn.Module, enabled: bool) -> Iterator[None]:
    """Gradient checkpointing in every encoder of a model, as long as this lasts."""
    encoders = [module for module in model.modules() if hasattr(module, "checkpoint_layers")]
    before = [encoder.checkpoint_layers for encoder in encoders]
    try:
        for encoder in encoders:
            encoder.checkpoint_layers = enabled
        yield
    finally:
        for encoder, value in zip(encoders, before, strict=True):
            encoder.checkpoint_layers = value


def multipliers(paths: Sequence[str], layers: int, layer_decay: float, head: float) -> dict[str, float]:
    """What each parameter's learning rate is multiplied by.

    Args:
        paths: of the trainable parameters of a `Classifier`.
        layers: of its encoder.
        layer_decay: of a layer over the next one; the embeddings count as the layer before the first (Clark et al.
            2020, "ELECTRA", appendix A).
        head: of the head.
    """

    def depth(path: str) -> int:
        """How many layers from this one to the last; the last norm and the head count as none."""
        if ".encoder.layers." in path:
            return layers - int(path.split(".encoder.layers.")[1].split(".")[0])
        return layers + 1 if ".embeddings." in path else 0

    return {path: head if path.startswith("head.") else layer_decay ** depth(path) for path in paths}
