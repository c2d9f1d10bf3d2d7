"""Features of a frozen encoder: computed once, stored on disk, reused by a resumed run.

The names of the files have a hash of the checkpoint, the preprocessing, the pooling, and the path, size and time of
every image (or a hash of its content), so that other features are never read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol, cast

import mlx.core as mx
import numpy as np

from ..datasets.labelled import Example
from ..errors import NonFiniteError, OutputError
from ..events import OnEvent, Progress
from ..models.classifier import Classifier
from ..storage.atomic import replacing
from ..training.batches import Batches, shuffled
from ..training.step import Batch

CHUNK = 64  # images in a file


class Stored(Protocol):
    """Features (N, D), or (N, n, D) of all tokens, in memory or on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of every axis."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """The features of some images."""


class FeatureEpochs:
    """Batches of features, whose order follows from seed and epoch alone."""

    def __init__(
        self, features: Stored, targets: np.ndarray, weights: np.ndarray, batch_size: int, seed: int
    ) -> None:
        """Take features (N, ...), targets (N, C) and weights (N,)."""
        self._features, self._targets, self._weights = features, targets, weights
        self._batch_size, self._seed = batch_size, seed

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return -(-len(self._features) // self._batch_size)

    def epoch(self, number: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from ``start_batch`` on."""
        order = shuffled(len(self._features), self._seed, number)
        for start in range(start_batch * self._batch_size, len(order), self._batch_size):
            chosen = np.sort(order[start : start + self._batch_size])
            features = np.asarray(self._features[chosen], dtype=np.float32)
            yield Batch((features,), self._targets[chosen], self._weights[chosen], chosen)


class FeatureFiles:
    """The features of one split on disk, `CHUNK` images in a file; read when they are needed."""

    def __init__(self, folder: Path, key: str, count: int) -> None:
        """Take the folder, the prefix of its files, and the number of images."""
        self._count, self._starts = count, range(0, count, CHUNK)
        self._paths = [folder / f"{key}-{number:05d}.npy" for number in range(len(self._starts))]

    def __len__(self) -> int:
        """N."""
        return self._count

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of every axis."""
        return (self._count, *np.load(self._paths[0], mmap_mode="r").shape[1:])

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The features (B, ...) of images (B,) in rising order, float32."""
        features = np.empty((len(rows), *self.shape[1:]), dtype=np.float32)
        for number in np.unique(rows // CHUNK):
            inside = rows // CHUNK == number
            features[inside] = np.load(self._paths[number], mmap_mode="r")[rows[inside] % CHUNK]
        return features

    def ready(self) -> int:
        """The number of images before the first file that is not whole."""
        incomplete = (start for number, start in enumerate(self._starts) if not self._is_whole(number))
        return next(incomplete, self._count)

    def _is_whole(self, number: int) -> bool:
        path, count = self._paths[number], min(CHUNK, self._count - self._starts[number])
        try:
            stored = np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None
        except (OSError, ValueError, EOFError):
            return False
        return isinstance(stored, np.ndarray) and stored.dtype.kind == "f" and len(stored) == count

    def write(self, batches: Iterator[np.ndarray], start: int) -> None:
        """Write batches of features, of images from ``start`` on, which is the first image of a file."""
        waiting: list[np.ndarray] = []
        count, number = 0, start // CHUNK
        for batch in batches:
            waiting, count = [*waiting, batch], count + len(batch)
            while count >= min(CHUNK, self._count - number * CHUNK) > 0:
                chunk = np.concatenate(waiting)
                with replacing(self._paths[number]) as partial, partial.open("wb") as file:
                    np.save(file, _packed(chunk[:CHUNK]))
                waiting, count, number = [chunk[CHUNK:]], max(0, count - CHUNK), number + 1


def compute_features(
    classifier: Classifier,
    batches: Batches,
    examples: tuple[Example, ...],
    made_by: dict[str, object],
    folder: Path,
    on_event: OnEvent,
) -> Stored:
    """The features of a split in the order of its examples; those on disk are not computed again.

    Args:
        classifier: has the encoder and the pooling.
        batches: of the split, in order.
        examples: of the split.
        made_by: all else that the features depend on.
        folder: of the files.
        on_event: called with progress.

    Returns:
        (N, D) in memory, or all tokens (N, n, D) on disk, in float16 if their range allows.

    Raises:
        OutputError: the folder cannot be written.
        NonFiniteError: a feature is NaN or infinity, or all of them are zero.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError.writing(folder, error) from error
    files = FeatureFiles(folder, _key(examples, {**made_by, "pooling": classifier.pooling}), len(examples))
    start = files.ready()
    on_event(Progress("computing features", start, len(examples)))
    classifier.eval()
    if start < len(examples):
        with closing(_computed(classifier, batches, examples, start, on_event)) as features:
            files.write(features, start)
    return files if len(files.shape) == 3 else files[np.arange(len(examples))]


def _computed(
    classifier: Classifier, batches: Batches, examples: Sequence[Example], start: int, on_event: OnEvent
) -> Generator[np.ndarray, None, None]:
    """The features of the images from ``start`` on, batch by batch."""
    first, skipped = divmod(start, batches.options.batch_size)
    with closing(cast("Generator[Batch, None, None]", batches.epoch(0, first))) as stream:
        for batch in stream:
            features = np.array(classifier.features(mx.array(batch.pixels)))
            _check(features, batch.indices, examples)
            on_event(Progress("computing features", int(batch.indices[-1]) + 1, len(examples)))
            yield features[skipped:]
            skipped = 0


def _check(features: np.ndarray, indices: np.ndarray, examples: Sequence[Example]) -> None:
    rows = features.reshape(len(features), -1)
    for is_bad, message in (
        (~rows.any(axis=1), "nothing but zeros: the checkpoint may be damaged"),
        (~np.isfinite(rows).all(axis=1), "NaN or infinity: compute in --dtype float32 or bfloat16"),
    ):
        if is_bad.any():
            path = examples[int(indices[int(np.argmax(is_bad))])].path
            raise NonFiniteError(f"{path}: the encoder gives {message}")


def _packed(features: np.ndarray) -> np.ndarray:
    """Tokens as float16, unless a value exceeds its range."""
    if features.ndim < 3:
        return features
    with np.errstate(over="ignore"):
        half = features.astype(np.float16)
    return half if np.isfinite(half).all() else features


def _key(examples: Sequence[Example], made_by: dict[str, object]) -> str:
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True, default=str).encode())
    for example in examples:
        file = example.path if example.sample is None else example.sample.file
        version = example.sample.version if example.sample is not None else ""
        if file is not None:
            stat = Path(file).stat()
            version = f"{stat.st_size} {stat.st_mtime_ns}"
        digest.update(f"{example.path}\n{version}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
