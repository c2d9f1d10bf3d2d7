"""A training step: gradients of some batches averaged, clipped and applied; optimizers; learning rates by depth."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from ..backend.device import on_cpu
from ..backend.streams import undivided
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
    """An optimizer by name; vectors and scalars do not decay, as in CLIP (section 2.5)."""
    make = OPTIMIZERS[name]
    return optim.MultiOptimizer([make(0.0), make(decay)], [lambda path, x: x.ndim < 2])


@dataclass(frozen=True)
class Batch:
    """Inputs of a model with their targets.

    Attributes:
        inputs: the arguments of the model: images (B, H, W, 3) float32, images and token ids (B, T) int32 padded on
            the right, or features (B, ...).
        targets: (B, C) float32; rows sum to 1, or with several labels each is between 0 and 1. For captions (B, B),
            by row images and by column captions.
        weights: (B,) float32, how much each image counts.
        indices: (B,) the examples of the split.
    """

    inputs: tuple[np.ndarray, ...]
    targets: np.ndarray
    weights: np.ndarray
    indices: np.ndarray

    @property
    def pixels(self) -> np.ndarray:
        """The first of the inputs."""
        return self.inputs[0]


class Stepper:
    """Makes the training steps of a model, compiled on a GPU.

    Attributes:
        model: the model that is trained.
        optimizer: its state is part of the state of a run.
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
        """Prepare the steps.

        Args:
            model: from a batch's inputs (B, ...) to logits (B, C).
            optimizer: its learning rate is set for every step.
            loss: of logits, targets and weights, as sums.
            max_grad_norm: gradients are clipped to this norm; 0 for no clipping.
            multipliers: factor of the learning rate of a parameter, by path; 1 for all others.
            bounds: least and most value of a parameter, by path; no bounds for all others.
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
        if not on_cpu():  # where compiling pays off
            state = [model.state, optimizer.state, mx.random.state]
            self._compute = Compiled(self._one_batch, inputs=state, outputs=state)
            self._apply = Compiled(self._update, inputs=state, outputs=state)

    @computing
    def step(self, batches: Sequence[Batch], learning_rate: float) -> tuple[float, float]:
        """Make a step of some batches.

        Returns:
            The mean loss, and the norm of the gradient before clipping. Parameters change only if both are
            finite.
        """
        with undivided():
            return self._step(batches, learning_rate)

    def _step(self, batches: Sequence[Batch], learning_rate: float) -> tuple[float, float]:
        total: Tree = None
        for batch in batches:
            inputs = tuple(mx.array(x) for x in batch.inputs)
            sums, gradients = self._compute(inputs, mx.array(batch.targets), mx.array(batch.weights))
            result = [*sums, gradients]
            total = result if total is None else tree_map(mx.add, total, result)
            mx.eval(total)  # before the next batch, to free the activations
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
        """Scale the change of each parameter: for every optimizer the same as to scale its learning rate."""
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
    """A context in which every encoder of a model uses gradient checkpointing, if ``enabled``."""
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
    """The factor of each parameter's learning rate.

    Args:
        paths: of the trainable parameters of a `Classifier`.
        layers: number of layers of its encoder.
        layer_decay: factor from a layer to the one before; the embeddings count as the layer before the first (Clark
            et al. 2020, "ELECTRA", appendix A).
        head: factor of the head.
    """

    def depth(path: str) -> int:
        """The number of layers from this one to the last; 0 for the last norm."""
        if ".encoder.layers." in path:
            return layers - int(path.split(".encoder.layers.")[1].split(".")[0])
        return layers + 1 if ".embeddings." in path else 0

    return {path: head if path.startswith("head.") else layer_decay ** depth(path) for path in paths}
