"""A training step: gradients of some batches averaged, clipped and applied; optimizers; learning rates by depth."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from ..backend.blas import STREAMS
from ..backend.device import on_cpu
from ..backend.streams import evaluate_together, even_slices, streams_for, undivided
from ..backend.threads import Compiled, computing
from ..models.kernels import cpu_compiles
from .losses import Sums

Arrays = tuple[mx.array, ...]
Tree = Any  # nested dicts and lists of arrays, as MLX has them
Loss = Callable[[mx.array, mx.array, mx.array], Sums]

# frozen parameters; with fewer, compiling kernels on a CPU (half a minute, once) takes longer than it saves
FROZEN = 1 << 26

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

    On a CPU, the steps of a large model that is mostly frozen are compiled, and each batch is divided over streams.

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
        by_example: bool = False,
    ) -> None:
        """Prepare the steps.

        Args:
            model: from a batch's inputs (B, ...) to logits (B, C).
            optimizer: its learning rate is set for every step.
            loss: of logits, targets and weights, as sums.
            max_grad_norm: gradients are clipped to this norm; 0 for no clipping.
            multipliers: factor of the learning rate of a parameter, by path; 1 for all others.
            bounds: least and most value of a parameter, by path; no bounds for all others.
            by_example: the model and the loss treat each example by itself, so that a batch may be divided.
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
        self._shares: list[Callable[..., Any]] = []  # of a batch, each computed on a stream of its own
        self._apply: Callable[..., Any] = self._update
        if not on_cpu():  # where compiling pays off
            state = [model.state, optimizer.state, mx.random.state]
            self._compute = Compiled(self._one_batch, inputs=state, outputs=state)
            self._apply = Compiled(self._update, inputs=state, outputs=state)
        elif by_example and _count(model.parameters()) - _count(model.trainable_parameters()) >= FROZEN:
            self._shares = [self._compiled() if cpu_compiles() else self._one_batch for _ in range(STREAMS)]
            self._compute = self._shares[0]

    def _compiled(self) -> Callable[..., Any]:
        return Compiled(
            self._one_batch, inputs=[self.model.state, mx.random.state], outputs=[mx.random.state]
        )

    @computing
    def step(self, batches: Sequence[Batch], learning_rate: float) -> tuple[float, float]:
        """Make a step of some batches.

        Returns:
            The mean loss, and the norm of the gradient before clipping. Parameters change only if both are
            finite.
        """
        total: Tree = None
        for batch in batches:
            result = self._sums(batch)
            total = result if total is None else tree_map(mx.add, total, result)
            mx.eval(total)  # before the next batch, to free the activations
        with undivided():
            return self._finish(total, learning_rate)

    def _sums(self, batch: Batch) -> Tree:
        """Loss, weight and gradients of a batch, as sums, evaluated; the examples are divided over streams."""
        count = len(batch.targets)
        streams = streams_for(batch.inputs[0].size)[:count] if self._shares else ()
        if len(streams) < 2:
            with undivided():
                result = self._share(self._compute, batch, slice(None))
                mx.eval(result)
            return result
        results = []
        for stream, rows, compute in zip(
            streams, even_slices(count, len(streams)), self._shares, strict=False
        ):
            mx.eval(self.model.state, mx.random.state)  # what two threads would evaluate at once
            with mx.stream(stream):
                results.append(self._share(compute, batch, rows))
        evaluate_together(results)
        return tree_map(lambda *parts: functools.reduce(mx.add, parts), *results)

    @staticmethod
    def _share(compute: Callable[..., Any], batch: Batch, rows: slice) -> Tree:
        inputs = tuple(mx.array(x[rows]) for x in batch.inputs)
        sums, gradients = compute(inputs, mx.array(batch.targets[rows]), mx.array(batch.weights[rows]))
        return [*sums, gradients]

    def _finish(self, total: Tree, learning_rate: float) -> tuple[float, float]:
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
        parameters = self.model.trainable_parameters()
        result: tuple[Sums, Tree] = self._gradients(self.model, inputs, targets, weights)
        self.model.update(parameters)  # MLX leaves copies there that are not evaluated
        return result

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


def _count(parameters: Tree) -> int:
    return sum(x.size for x in dict(tree_flatten(parameters)).values())


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
