"""What a frozen encoder sees, computed once and kept on disk; a run that was cut short goes on where it was.

The files carry a name made of what made them: the checkpoint, the preprocessing, the pooling, and every picture's
path, size and time. What does not fit any more is not looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np

from ..checkpoints.atomic import replacing
from ..errors import NonFiniteError, OutputError
from ..events import OnEvent, Progress
from ..models.classifier import Classifier
from .batches import Batches
from .dataset import Example

CHUNK = 16  # batches in a file


@dataclass(frozen=True)
class FeatureBatch:
    """Features in the place of pixels; see `Batch`."""

    pixels: np.ndarray  # (B, D) or (B, N, D)
    targets: np.ndarray
    weights: np.ndarray

    @property
    def inputs(self) -> tuple[np.ndarray]:
        """What the model is given."""
        return (self.pixels,)


class FeatureEpochs:
    """Training data made of features, whose order follows from seed and epoch alone."""

    def __init__(
        self, features: np.ndarray, targets: np.ndarray, weights: np.ndarray, batch_size: int, seed: int
    ) -> None:
        """Take features (N, ...), targets (N, C) and weights (N,)."""
        self._features, self._targets, self._weights = features, targets, weights
        self._batch_size, self._seed = batch_size, seed

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._features) // self._batch_size)

    def epoch(self, number: int, start_batch: int = 0) -> Iterator[FeatureBatch]:
        """The batches of an epoch, from one of them on."""
        order = np.random.default_rng([self._seed, number]).permutation(len(self._features))
        for start in range(start_batch * self._batch_size, len(order), self._batch_size):
            chosen = np.sort(order[start : start + self._batch_size])
            yield FeatureBatch(
                np.asarray(self._features[chosen], dtype=np.float32),
                self._targets[chosen],
                self._weights[chosen],
            )


def compute_features(
    classifier: Classifier,
    batches: Batches,
    examples: tuple[Example, ...],
    made_by: dict[str, object],
    folder: Path,
    on_event: OnEvent,
) -> np.ndarray:
    """The features of a split in the order of its examples; what is on disk already is not computed again.

    Args:
        classifier: its encoder and pooling make them.
        batches: of the split, in order.
        examples: of the split.
        made_by: what else the features follow from.
        folder: where to keep them.
        on_event: called with progress.

    Returns:
        (N, D) or (N, n, D), float32, or float16 where all tokens of a picture are kept.

    Raises:
        OutputError: the folder cannot be written.
        NonFiniteError: a feature is NaN or infinity.
    """
    key = _key(examples, {**made_by, "pooling": classifier.pooling, "batch_size": batches.options.batch_size})
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error
    chunks = range(-(-len(batches) // CHUNK))
    names = [folder / f"{key}-{number:05d}.npy" for number in chunks]
    size = CHUNK * batches.options.batch_size
    ready = [_read(name, min(size, len(examples) - number * size)) for number, name in enumerate(names)]
    first = next((number for number in chunks if ready[number] is None), len(names))
    done = sum(len(chunk) for chunk in ready[:first] if chunk is not None)
    on_event(Progress("computing features", done, len(examples)))
    classifier.eval()
    stream = batches.epoch(0, first * CHUNK)
    with ExitStack() as stack:
        stack.callback(getattr(stream, "close", lambda: None))
        for number in range(first, len(names)):
            parts = []
            for batch in _take(stream, CHUNK):
                features = classifier.features(mx.array(batch.pixels))
                parts.append(_checked(features, batch.indices, examples))
                done += len(batch.indices)
                on_event(Progress("computing features", done, len(examples)))
            chunk = np.concatenate(parts)
            ready[number] = chunk
            with replacing(names[number]) as partial, partial.open("wb") as file:
                np.save(file, chunk)
    return np.concatenate([chunk for chunk in ready if chunk is not None])


def _take(stream: Iterator, count: int) -> Iterator:  # type: ignore[type-arg]
    for _ in range(count):
        batch = next(stream, None)
        if batch is None:
            return
        yield batch


def _checked(features: mx.array, indices: np.ndarray, examples: tuple[Example, ...]) -> np.ndarray:
    found = np.array(features)
    finite = np.isfinite(found).reshape(len(found), -1).all(axis=1)
    if not finite.all():
        path = examples[int(indices[int(np.argmin(finite))])].path
        raise NonFiniteError(
            f"{path}: the encoder gives NaN or infinity: compute in --dtype float32 or bfloat16"
        )
    return found.astype(np.float16) if found.ndim == 3 else found


def _read(path: Path, count: int) -> np.ndarray | None:
    """The features of so many pictures; None where they have to be computed, as where the file is damaged."""
    try:
        found = np.load(path, allow_pickle=False) if path.is_file() else None
    except (OSError, ValueError, EOFError):
        return None
    return found if found is not None and len(found) == count else None


def _key(examples: tuple[Example, ...], made_by: dict[str, object]) -> str:
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True, default=str).encode())
    for example in examples:
        stat = Path(example.path).stat()
        digest.update(f"{example.path}\n{stat.st_size} {stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
