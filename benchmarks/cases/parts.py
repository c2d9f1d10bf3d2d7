"""Where the time of a forward pass goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ours
from data import checkpoint
from suite import Case, Family, Result, Setup, Side
from timing import repeated

NAME, BATCHES, TOKENS = "large-224", (1, 8), 256


def attention(layer: Any, own: dict[str, Any]) -> list[Any]:
    """Attention without its projections."""
    from mlx_aimv2.models import kernels

    return [kernels.attention(own["q"], own["k"], own["k"])]


def activation(layer: Any, own: dict[str, Any]) -> list[Any]:
    """silu(gate) * up."""
    from mlx_aimv2.models import kernels

    return [kernels.gated("silu", own["inner"], own["inner"])]


def norms(layer: Any, own: dict[str, Any]) -> list[Any]:
    """Both norms."""
    return [layer.rms_norm1(own["x"]), layer.rms_norm2(own["x"])]


def sums(layer: Any, own: dict[str, Any]) -> list[Any]:
    """Both sums of a layer's input and output."""
    return [own["x"] + own["x"], own["x"] + own["x"]]


PARTS: dict[str, Callable[[Any, dict[str, Any]], list[Any]]] = {
    "products of q, k, v, out": ours.square_products,
    "products of gate, up": ours.wide_products,
    "products of down": ours.down_products,
    "products in attention": ours.attention_products,
    "attention with its products": attention,
    "activation": activation,
    "norms": norms,
    "sums": sums,
}


def mlx(setup: Setup, batch: int) -> Result:
    """The forward pass, each part of all its layers alone, and the Python code that builds the graph."""
    model, _ = ours.load_model(setup, NAME)
    import mlx.core as mx

    pixels = mx.random.normal((batch, 224, 224, 3))
    shares = ours.Shares.of(model, batch, TOKENS)
    runs: dict[str, Callable[[], object]] = {
        "forward pass": lambda: mx.eval(model(pixels).last_hidden_state),
        **{name: lambda part=part: shares.run(part) for name, part in PARTS.items()},
        "building the graph in Python": lambda: model(pixels),
    }
    return {
        "timings": {name: repeated(setup, run, budget_s=2) for name, run in runs.items()},
        "values": {},
    }


def cases(setup: Setup) -> list[Case]:
    """A case for each batch."""
    return [
        Case(f"batch {batch}", (Side("mlx-aimv2", mlx, {"batch": batch}),), 0, 1, (checkpoint(NAME),))
        for batch in BATCHES
    ]


FAMILY = Family(
    "parts",
    "Where the time goes",
    "The forward pass of large-224, and each part of all its layers alone, divided over the CPU streams as there. The"
    " parts lack copies, waiting of the streams for each other, and memory that is no longer in a cache.",
    cases,
)
