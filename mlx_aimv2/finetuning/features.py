"""What a frozen encoder sees, computed once and kept on disk; a run that was cut short goes on where it was.

The files carry a name made of what made them: the checkpoint, the preprocessing, the pooling, and every image's
path, size and time. What does not fit any more is not looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import mlx.core as mx
import numpy as np

from ..datasets.labelled import Example
from ..errors import NonFiniteError, OutputError
from ..events import OnEvent, Progress
from ..models.classifier import Classifier
from ..storage.atomic import replacing
from ..training.batches import Batch, Batches, shuffled

CHUNK = 64  # images in a file


class Stored(Protocol):
    """Features (N, D) or (N, n, D), in memory or on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of every axis."""

    def __len__(self) -> int:
        """N."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """The features of some images."""


@dataclass(frozen=True)
class FeatureBatch:
    """Features in the place of images; see `stepping.Batch`."""

    features: np.ndarray  # (B, D) or (B, n, D)
    targets: np.ndarray
    weights: np.ndarray

    @property
    def inputs(self) -> tuple[np.ndarray]:
        """What the model is given."""
        return (self.features,)


class FeatureEpochs:
    """Training data made of features, whose order follows from seed and epoch alone."""

    def __init__(
        self, features: Stored, targets: np.ndarray, weights: np.ndarray, batch_size: int, seed: int
    ) -> None:
        """Take features (N, ...), targets (N, C) and weights (N,)."""
        self._features, self._targets, self._weights = features, targets, weights
        self._batch_size, self._seed = batch_size, seed

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._features) // self._batch_size)

    def epoch(self, number: int, start_batch: int = 0) -> Iterator[FeatureBatch]:
        """The batches of an epoch, from one of them on."""
        order = shuffled(len(self._features), self._seed, number)
        for start in range(start_batch * self._batch_size, len(order), self._batch_size):
            chosen = np.sort(order[start : start + self._batch_size])
            yield FeatureBatch(
                np.asarray(self._features[chosen], dtype=np.float32),
                self._targets[chosen],
                self._weights[chosen],
            )


class FeatureFiles:
    """The features of one split on disk, so many images in a file; read as they are needed.

    Attributes:
        shape: (N, D) or (N, n, D), known once there is a file.
    """

    def __init__(self, folder: Path, key: str, count: int) -> None:
        """Name the folder, what the names of its files begin with, and how many images there are."""
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
        found = np.empty((len(rows), *self.shape[1:]), dtype=np.float32)
        for number in np.unique(rows // CHUNK):
            inside = rows // CHUNK == number
            found[inside] = np.load(self._paths[number], mmap_mode="r")[rows[inside] % CHUNK]
        return found

    def ready(self) -> int:
        """Images whose features need not be computed: those in front of the first file that is not whole."""
        for number, start in enumerate(self._starts):
            if not self._is_whole(number):
                return start
        return self._count

    def _is_whole(self, number: int) -> bool:
        path, count = self._paths[number], min(CHUNK, self._count - self._starts[number])
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None
        except (OSError, ValueError, EOFError):
            return False
        return isinstance(found, np.ndarray) and found.dtype.kind == "f" and len(found) == count

    def write(self, parts: Iterator[np.ndarray], start: int) -> None:
        """Write the features that come, of images from ``start`` on, which is the first one of a file."""
        waiting: list[np.ndarray] = []
        held, number = 0, start // CHUNK
        for part in parts:
            waiting, held = [*waiting, part], held + len(part)
            while held >= min(CHUNK, self._count - number * CHUNK) > 0:
                chunk = np.concatenate(waiting)
                with replacing(self._paths[number]) as partial, partial.open("wb") as file:
                    np.save(file, _packed(chunk[:CHUNK]))
                waiting, held, number = [chunk[CHUNK:]], max(0, held - CHUNK), number + 1


def compute_features(
    classifier: Classifier,
    batches: Batches,
    examples: tuple[Example, ...],
    made_by: dict[str, object],
    folder: Path,
    on_event: OnEvent,
) -> Stored:
    """The features of a split in the order of its examples; what is on disk already is not computed again.

    Args:
        classifier: its encoder and pooling make them.
        batches: of the split, in order.
        examples: of the split.
        made_by: what else the features follow from.
        folder: where to keep them.
        on_event: called with progress.

    Returns:
        (N, D) in memory, or where all tokens of an image are kept (N, n, D) on disk, in float16 if that holds them.

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
        with closing(_computed(classifier, batches, examples, start, on_event)) as parts:
            files.write(parts, start)
    return files if len(files.shape) == 3 else files[np.arange(len(examples))]


def _computed(
    classifier: Classifier, batches: Batches, examples: Sequence[Example], start: int, on_event: OnEvent
) -> Generator[np.ndarray, None, None]:
    """The features of the images from ``start`` on, batch by batch; batches are the same wherever it starts."""
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
    dead = ~rows.any(axis=1)
    if dead.any():
        path = examples[int(indices[int(np.argmax(dead))])].path
        raise NonFiniteError(f"{path}: the encoder gives nothing but zeros: the checkpoint may be damaged")
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        path = examples[int(indices[int(np.argmin(finite))])].path
        raise NonFiniteError(
            f"{path}: the encoder gives NaN or infinity: compute in --dtype float32 or bfloat16"
        )


def _packed(features: np.ndarray) -> np.ndarray:
    """Tokens in half the room where that has room for them, which ends at 65504."""
    if features.ndim < 3:
        return features
    with np.errstate(over="ignore"):
        half = features.astype(np.float16)
    return half if np.isfinite(half).all() else features


def _key(examples: Sequence[Example], made_by: dict[str, object]) -> str:
    digest = hashlib.sha256(json.dumps(made_by, sort_keys=True, default=str).encode())
    for example in examples:
        stat = Path(example.path).stat()
        digest.update(f"{example.path}\n{stat.st_size} {stat.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
