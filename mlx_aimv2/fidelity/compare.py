"""Comparison of a checkpoint and its conversion: run both on the same inputs, and compare the outputs.

A layer's relative error is the largest, over a few images (or texts), of ||converted - original|| / ||original||,
Frobenius norms of that layer's output on one image. It contains the errors of all layers before.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from ..backend.blas import blas_problem
from ..backend.device import compute_dtype, on_cpu
from ..backend.threads import computing
from ..config import Aimv2Config, AnyConfig
from ..errors import InputError
from ..events import Notice, OnEvent, warn
from ..loading import Checkpoint, LoadOptions, at_resolution, inspect
from ..processing.build import build_processor
from ..processing.decode import ImageInput
from ..processing.processor import Processor
from .outputs import Labelling, Outputs, Sample, States, compute_outputs, make_sample
from .report import Fidelity, ZeroShot

NEIGHBOURS = 10
ROWS = 1024  # of the matrix of similarities, computed at once
# The sizes in which two checkpoints of one model agree; a conversion may change everything else.
ARCHITECTURE = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size", "use_head",
    "vocab_size", "max_position_embeddings", "projection_dim",
)  # fmt: skip


@computing
def compare(
    original: str | os.PathLike[str],
    converted: str | os.PathLike[str],
    images: Sequence[ImageInput] | None = None,
    *,
    revision: str | None = None,
    options: LoadOptions | None = None,
    on_event: OnEvent = warn,
) -> Fidelity:
    """Run a checkpoint and its conversion on the same inputs, one after the other.

    Args:
        original: a folder, a repository or a short name; any published layout.
        converted: likewise, of the same architecture.
        images: images to run them on, at least two that can be read; None for built-in drawings.
        revision: branch, tag or commit of the original's repository.
        options: how to load; its ``weights`` names a file of the original.
        on_event: called with progress, notices, and the images that cannot be read.

    Raises:
        InputError: the two are different models, or fewer than two images can be read.
        NonFiniteError: a model gives NaN or infinity; the message names it.
        CheckpointError: ``original`` or ``converted`` is no checkpoint, or damaged.
        OutputError: there is no room to unpack an .npz or .msgpack file.
        HubError: the Hub does not deliver a checkpoint.
    """
    options = options or LoadOptions()
    compute_dtype(options.dtype)  # raises before anything is downloaded
    sample = make_sample(images)
    first = at_resolution(inspect(original, revision, options.weights, on_event), options)
    return compare_checkpoints(first, inspect(converted, on_event=on_event), sample, options, on_event)


def compare_checkpoints(
    first: Checkpoint, second: Checkpoint, sample: Sample, options: LoadOptions, on_event: OnEvent
) -> Fidelity:
    """Compare two checkpoints whose headers are read; see `compare`."""
    _check_same(first, second)
    if (problem := blas_problem()) is not None:
        on_event(Notice(problem))
    processor, other = (
        build_processor(
            checkpoint.resolved.folder,
            checkpoint.config,
            options.decode,
            options.native,
            resized=options.interpolate_positions,
            on_event=on_event,
        )
        for checkpoint in (first, second)
    )
    if differing := _differing_settings(processor, other, sample.prompts):
        on_event(Notice(f"they prepare inputs differently ({', '.join(differing)}): both get the original's"))
    before = compute_outputs("original", first, processor, sample, options, on_event)
    mx.clear_cache()
    sample = dataclasses.replace(sample, images=before.images)
    after = compute_outputs("converted", second, processor, sample, options, on_event)
    mx.clear_cache()
    if len(after.images) != len(before.images):
        raise InputError("images that could be read at first cannot be any more: compare once again")
    return _measure(before, after, sample, tuple(differing))


def _check_same(first: Checkpoint, second: Checkpoint) -> None:
    """Refuse to compare two different models."""
    before, after = _architecture(first.config), _architecture(second.config)
    differing = [name for name in before if before[name] != after.get(name)]
    if differing:
        original = f"{first.resolved.name} ({_text(before, differing)})"
        converted = f"{second.resolved.name} ({_text(after, differing)})"
        raise InputError(
            f"{original} and {converted} are different models: compare a checkpoint with its own conversion"
        )


def _architecture(config: AnyConfig) -> dict[str, Any]:
    if not isinstance(config, Aimv2Config):
        return {"kind": "a vision encoder", **_shape(config)}
    text = {f"text {name}": value for name, value in _shape(config.text_config).items()}
    return {"kind": "an image-text pair", **_shape(config.vision_config), **text, **_shape(config)}


def _shape(config: Any) -> dict[str, Any]:
    shape = {name: getattr(config, name) for name in ARCHITECTURE if hasattr(config, name)}
    if hasattr(config, "is_native"):
        shape["resolution"] = "native" if config.is_native else f"{config.image_size} pixels"
    return shape


def _text(architecture: dict[str, Any], names: list[str]) -> str:
    if "kind" in names:
        return str(architecture["kind"])
    return ", ".join(f"{name} {architecture[name]}" for name in names)


def _differing_settings(first: Processor, second: Processor, prompts: list[str]) -> list[str]:
    """The settings in which two checkpoints prepare their inputs differently."""
    before, after = first.image_processor.settings(), second.image_processor.settings()
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if first.tokenizer is not None and not np.array_equal(
        first.encode(prompts).input_ids, second.encode(prompts).input_ids
    ):
        names.append("tokenizer")
    return names


def _measure(before: Outputs, after: Outputs, sample: Sample, differing: tuple[str, ...]) -> Fidelity:
    count = len(before.embeddings)
    neighbours = max(1, min(NEIGHBOURS, (count - 1) // 2))  # any two models agree on all the others
    cosines = row_cosines(before.embeddings, after.embeddings)
    return Fidelity(
        original=before.side,
        converted=after.side,
        device="cpu" if on_cpu() else "gpu",
        images=count,
        drawn=sample.drawn,
        cosine_min=float(cosines.min()),
        cosine_mean=float(cosines.mean()),
        neighbour_recall=recall(before.embeddings, after.embeddings, neighbours) if count > 2 else None,
        neighbours=neighbours,
        layers=tuple(_layer_errors(before.all_states, after.all_states).items()),
        layer_images=len(before.states),
        zero_shot=_zero_shot(before.labelling, after.labelling, sample.labels),
        differing=differing,
    )


def _zero_shot(before: Labelling | None, after: Labelling | None, labels: tuple[str, ...]) -> ZeroShot | None:
    if before is None or after is None:
        return None
    first, second = before.probabilities, after.probabilities  # (N, C)
    return ZeroShot(
        labels=labels,
        agreement=float((first.argmax(axis=1) == second.argmax(axis=1)).mean()),
        probability_difference=float(np.abs(first - second).max()),
        text_cosine_min=float(row_cosines(before.embeddings, after.embeddings).min()),
    )


def _layer_errors(original: list[States], converted: list[States]) -> dict[str, float]:
    """The largest relative error of every layer, in the order of the layers."""
    errors: dict[str, float] = {}
    for expected, actual in zip(original, converted, strict=True):
        for name, state in expected.items():
            norm = max(float(np.linalg.norm(state)), np.finfo(np.float32).tiny)
            errors[name] = max(errors.get(name, 0.0), float(np.linalg.norm(actual[name] - state)) / norm)
    return errors


def row_cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine similarities (N,) float64 of the rows of two matrices (N, D)."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.clip((first * second).sum(axis=1) / np.maximum(norms, 1e-12), -1, 1)


def recall(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """The share of each row's ``k`` nearest rows that two sets of unit vectors (N, D) agree on."""
    pairs = zip(_nearest(first, k), _nearest(second, k), strict=True)
    return float(np.mean([np.isin(before, after).mean() for before, after in pairs]))


def _nearest(vectors: np.ndarray, k: int) -> Iterator[np.ndarray]:
    """The ``k`` nearest other rows (K,) of each row of (N, D)."""
    for start in range(0, len(vectors), ROWS):
        cosines = vectors[start : start + ROWS] @ vectors.T
        for row, line in enumerate(cosines):
            line[start + row] = -np.inf
            yield np.argsort(-line, kind="stable")[:k]
